#include "data/tokenizer/load.h"

#include "core/base/files.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "data/tokenizer/sentencepiece_tokenizer.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& folder) {
  const std::string model_path = absl::StrCat(folder, "/", SentencePieceTokenizer::kFileName);
  absl::StatusOr<std::string> model = ReadFile(model_path);
  if (model.ok()) return SentencePieceTokenizer::Load(model_path, *std::move(model));
  if (!absl::IsNotFound(model.status())) return model.status();

  const std::string path = absl::StrCat(folder, "/", ByteTokenizer::kFileName);
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  auto bytes = std::make_unique<ByteTokenizer>();
  if (content == bytes->file_content()) return bytes;
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": is not the byte tokenizer's file, the only one of this name that is read"));
}

}  // namespace moebius
