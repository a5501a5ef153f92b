// Tokens learned by SentencePiece (Kudo and Richardson, EMNLP 2018), made lossless: decoding gives
// back every string of bytes, invalid UTF-8 included.
//
// What the model cannot say (invalid UTF-8, NUL, and U+2581, which SentencePiece uses for the
// space) is written as byte pieces; so is any word that the model would not give back exactly.
// Decoding joins the bytes of the pieces itself. The separator is the model's end-of-sentence
// piece, which no text encodes to.
//
// A text is encoded word by word; words begin at a run of spaces or are runs of newlines, and no
// learned piece reaches beyond one.
//
// The library lies in a plugin beside the program, libmoebius_sentencepiece.so; without it, loading
// and training are NotFound errors that name the path.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "data/spec.h"
#include "data/tokenizer/tokenizer.h"

struct SentencePieceApi;

namespace moebius {

class SentencePieceTokenizer : public Tokenizer {
 public:
  static constexpr char kFileName[] = "tokenizer.model";

  // Learns spec.vocab_size tokens. InvalidArgument if the text has too few (or too many different
  // characters) for that.
  static absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> Train(
      const TokenizerSpec& spec, std::span<const std::string> documents);

  // `model` is the content of a SentencePiece model file with byte fallback, an end-of-sentence
  // piece and no text that is rewritten. InvalidArgument otherwise; errors begin with `name`.
  static absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> Load(const std::string& name,
                                                                      std::string model);
  ~SentencePieceTokenizer() override;

  void Encode(std::string_view bytes, std::vector<int32_t>& ids) const override;
  std::string Decode(std::span<const int32_t> ids) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }
  int32_t separator() const override { return separator_; }
  std::string file_name() const override { return kFileName; }
  std::string file_content() const override { return model_; }

 private:
  SentencePieceTokenizer(const SentencePieceApi& api, void* processor, std::string model);
  absl::Status ReadPieces(const std::string& name);
  void EncodeWord(std::string_view word, std::vector<int32_t>& ids) const;
  void EncodeBytes(std::string_view bytes, std::vector<int32_t>& ids) const;

  const SentencePieceApi& api_;
  void* const processor_;
  const std::string model_;
  std::vector<std::string> pieces_;    // the bytes of each id
  std::array<int32_t, 256> byte_ids_;  // the piece of each byte
  int32_t separator_ = -1;
};

// The length of the longest beginning of `bytes` that SentencePiece can represent.
size_t RepresentablePrefix(std::string_view bytes);

}  // namespace moebius
