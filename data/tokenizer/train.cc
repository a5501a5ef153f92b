#include "data/tokenizer/train.h"

#include "data/tokenizer/byte_tokenizer.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<Tokenizer>> TrainTokenizer(
    const TokenizerSpec& spec, std::span<const std::string> /*documents*/) {
  if (spec.kind == TokenizerSpec::Kind::kBytes) return std::make_unique<ByteTokenizer>();
  return absl::UnimplementedError("data.tokenizer.kind: SENTENCEPIECE is not there");
}

}  // namespace moebius
