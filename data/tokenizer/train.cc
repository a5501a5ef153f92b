#include "data/tokenizer/train.h"

#include "data/tokenizer/byte_tokenizer.h"
#include "data/tokenizer/sentencepiece_tokenizer.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<Tokenizer>> TrainTokenizer(const TokenizerSpec& spec,
                                                          std::span<const std::string> documents) {
  if (spec.kind == TokenizerSpec::Kind::kBytes) return std::make_unique<ByteTokenizer>();
  return SentencePieceTokenizer::Train(spec, documents);
}

}  // namespace moebius
