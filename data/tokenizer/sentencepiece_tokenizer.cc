#include "data/tokenizer/sentencepiece_tokenizer.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "core/base/check.h"
#include "data/tokenizer/sentencepiece_plugin.h"

namespace moebius {
namespace {

constexpr char kPlugin[] = "libmoebius_sentencepiece.so";
constexpr std::string_view kSpace = "\xe2\x96\x81";    // U+2581 stands for ' ' in pieces
constexpr std::string_view kUnknown = "\xe2\x96\x85";  // U+2585: the trainer keeps it for itself
constexpr size_t kSentenceBytes = 4096;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kOpenFlags = RTLD_NOW | RTLD_LOCAL;  // sanitizers refuse RTLD_DEEPBIND
#else
constexpr int kOpenFlags = RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND;
#endif

absl::StatusOr<const SentencePieceApi*> OpenPlugin() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string path = program.parent_path() / kPlugin;
  void* library = dlopen(path.c_str(), kOpenFlags);
  void* symbol = library != nullptr ? dlsym(library, "GetSentencePieceApi") : nullptr;
  if (symbol == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("the SentencePiece plugin cannot be opened: ", dlerror()));
  }
  return reinterpret_cast<decltype(&GetSentencePieceApi)>(symbol)();
}

// Opened once; it stays.
absl::StatusOr<const SentencePieceApi*> Plugin() {
  static const absl::StatusOr<const SentencePieceApi*> api = OpenPlugin();
  return api;
}

void CopyText(void* context, SentencePieceText text) {
  static_cast<std::string*>(context)->assign(text.data, text.size);
}

void CopyIds(void* context, const int* ids, size_t count) {
  static_cast<std::vector<int32_t>*>(context)->assign(ids, ids + count);
}

// The length of the valid UTF-8 character that `bytes` begins with, or 0.
size_t CharacterLength(std::string_view bytes) {
  const auto at = [&](size_t i) {
    return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u;
  };
  const unsigned lead = at(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xC2 && lead < 0xE0   ? 2
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xE0 && at(1) < 0xA0) || (lead == 0xF0 && at(1) < 0x90);
  const bool surrogate = lead == 0xED && at(1) >= 0xA0;
  const bool too_large = lead == 0xF4 && at(1) >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

// The length of the first word of a text that is not empty: a run of newlines, or a run of spaces
// (perhaps none) and what follows up to the next space or newline. No piece reaches beyond a word.
size_t WordLength(std::string_view text) {
  const auto end = [&](size_t at) { return std::min(at, text.size()); };
  const size_t newlines = end(text.find_first_not_of('\n'));
  if (newlines > 0) return newlines;
  return end(text.find_first_of(" \n", end(text.find_first_not_of(' '))));
}

// The representable stretches of the documents in sentences: lines, and the newlines between them.
std::vector<SentencePieceText> MakeSentences(std::span<const std::string> documents) {
  std::vector<SentencePieceText> sentences;
  for (std::string_view rest : documents) {
    while (!rest.empty()) {
      const std::string_view text =
          rest.substr(0, RepresentablePrefix(rest.substr(0, kSentenceBytes)));
      const size_t newlines = std::min(text.find_first_not_of('\n'), text.size());
      const size_t size = newlines > 0 ? newlines : std::min(text.find('\n'), text.size());
      if (size > 0) sentences.push_back({text.data(), size});
      rest.remove_prefix(std::max<size_t>(size, 1));
    }
  }
  return sentences;
}

std::string Unescape(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const bool space = piece.starts_with(kSpace);
    text += space ? ' ' : piece[0];
    piece.remove_prefix(space ? kSpace.size() : 1);
  }
  return text;
}

}  // namespace

size_t RepresentablePrefix(std::string_view bytes) {
  size_t size = 0;
  while (size < bytes.size()) {
    const std::string_view rest = bytes.substr(size);
    const size_t length = CharacterLength(rest);
    if (length == 0 || rest[0] == '\0' || rest.starts_with(kSpace) || rest.starts_with(kUnknown)) {
      break;
    }
    size += length;
  }
  return size;
}

absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> SentencePieceTokenizer::Train(
    const TokenizerSpec& spec, std::span<const std::string> documents) {
  ASSIGN_OR_RETURN(const SentencePieceApi* api, Plugin());
  const std::vector<SentencePieceText> sentences = MakeSentences(documents);
  const SentencePieceTraining training = {.unigram = spec.kind == TokenizerSpec::Kind::kUnigram,
                                          .vocab_size = spec.vocab_size,
                                          .sentences = sentences.data(),
                                          .num_sentences = sentences.size()};
  std::string result;
  if (!api->train(&training, CopyText, CopyText, &result)) {
    return absl::InvalidArgumentError(
        absl::StrCat("data.tokenizer.vocab_size: ", spec.vocab_size,
                     " tokens cannot be learned from this text: ", result));
  }
  return Load("the trained SentencePiece model", std::move(result));
}

absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> SentencePieceTokenizer::Load(
    const std::string& name, std::string model) {
  ASSIGN_OR_RETURN(const SentencePieceApi* api, Plugin());
  std::string error;
  void* processor = api->load({model.data(), model.size()}, CopyText, &error);
  if (processor == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not a SentencePiece model: ", error));
  }
  std::unique_ptr<SentencePieceTokenizer> tokenizer(
      new SentencePieceTokenizer(*api, processor, std::move(model)));
  RETURN_IF_ERROR(tokenizer->ReadPieces(name));
  return tokenizer;
}

SentencePieceTokenizer::SentencePieceTokenizer(const SentencePieceApi& api, void* processor,
                                               std::string model)
    : api_(api), processor_(processor), model_(std::move(model)) {
  byte_ids_.fill(-1);
}

SentencePieceTokenizer::~SentencePieceTokenizer() { api_.unload(processor_); }

absl::Status SentencePieceTokenizer::ReadPieces(const std::string& name) {
  separator_ = api_.separator(processor_);
  if (separator_ < 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": has no end-of-sentence piece"));
  }
  for (int id = 0; id < api_.num_pieces(processor_); ++id) {
    std::string piece;
    const SentencePieceKind kind = api_.piece(processor_, id, CopyText, &piece);
    if (kind == kSentencePieceByte) {  // "<0xAB>"
      unsigned byte = 0;
      std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
      byte_ids_[byte & 0xFF] = id;
      piece.assign(1, static_cast<char>(byte));
    } else {
      piece = kind == kSentencePieceText ? Unescape(piece) : "";
    }
    pieces_.push_back(std::move(piece));
  }
  if (std::ranges::count(byte_ids_, -1) > 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": has no piece for every byte"));
  }
  return absl::OkStatus();
}

void SentencePieceTokenizer::Encode(std::string_view bytes, std::vector<int32_t>& ids) const {
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> known;  // words: where in `ids`
  while (!bytes.empty()) {
    std::string_view text = bytes.substr(0, RepresentablePrefix(bytes));
    bytes.remove_prefix(text.size());
    while (!text.empty()) {
      const std::string_view word = text.substr(0, WordLength(text));
      text.remove_prefix(word.size());
      const auto [found, is_new] = known.try_emplace(word, ids.size(), 0);
      auto& [begin, count] = found->second;
      if (is_new) {
        EncodeWord(word, ids);
        count = ids.size() - begin;
      } else {
        for (size_t i = 0; i < count; ++i) ids.push_back(ids[begin + i]);
      }
    }
    const size_t other = std::min<size_t>(bytes.size(), 1);
    EncodeBytes(bytes.substr(0, other), ids);
    bytes.remove_prefix(other);
  }
}

void SentencePieceTokenizer::EncodeWord(std::string_view word, std::vector<int32_t>& ids) const {
  std::vector<int32_t> found;
  const bool encoded = api_.encode(processor_, {word.data(), word.size()}, CopyIds, &found);
  if (encoded && Decode(found) == word) {
    ids.insert(ids.end(), found.begin(), found.end());
  } else {
    EncodeBytes(word, ids);
  }
}

void SentencePieceTokenizer::EncodeBytes(std::string_view bytes, std::vector<int32_t>& ids) const {
  for (const char byte : bytes) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
}

std::string SentencePieceTokenizer::Decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) {
    CHECK(id >= 0 && id < vocab_size()) << "id " << id;
    bytes += pieces_[static_cast<size_t>(id)];
  }
  return bytes;
}

}  // namespace moebius
