#include "data/tokenizer/byte_tokenizer.h"

#include <nlohmann/json.hpp>

#include "core/base/check.h"

namespace moebius {
namespace {

// The character that stands for a byte in byte-level vocabularies: itself where it can be seen,
// else the next free one from U+0100 on. As UTF-8.
std::vector<std::string> ByteCharacters() {
  std::vector<std::string> characters;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool seen = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    const int code = seen ? byte : next++;
    if (code < 0x80) {
      characters.emplace_back(1, static_cast<char>(code));
    } else {
      characters.push_back(
          {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))});
    }
  }
  return characters;
}

}  // namespace

void ByteTokenizer::Encode(std::string_view bytes, std::vector<int32_t>& ids) const {
  for (const char byte : bytes) ids.push_back(static_cast<unsigned char>(byte));
}

std::string ByteTokenizer::Decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) {
    CHECK(id >= 0 && id < vocab_size()) << "id " << id;
    if (id != separator()) bytes.push_back(static_cast<char>(id));
  }
  return bytes;
}

std::string ByteTokenizer::file_content() const {
  using Json = nlohmann::ordered_json;
  constexpr char kSeparator[] = "<|endoftext|>";
  Json vocabulary;
  const std::vector<std::string> characters = ByteCharacters();
  for (size_t byte = 0; byte < characters.size(); ++byte) vocabulary[characters[byte]] = byte;
  vocabulary[kSeparator] = separator();
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  const Json added = {{"id", separator()}, {"content", kSeparator}, {"single_word", false},
                      {"lstrip", false},   {"rstrip", false},       {"normalized", false},
                      {"special", true}};
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"vocab", vocabulary},
                      {"merges", Json::array()}};
  const Json file = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", Json::array({added})},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", byte_level},
                     {"post_processor", nullptr},
                     {"decoder", byte_level},
                     {"model", model}};
  return file.dump(1) + "\n";
}

}  // namespace moebius
