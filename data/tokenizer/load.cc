#include "data/tokenizer/load.h"

#include "core/base/files.h"
#include "data/tokenizer/byte_tokenizer.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& folder) {
  auto bytes = std::make_unique<ByteTokenizer>();
  const std::string path = absl::StrCat(folder, "/", bytes->file_name());
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  if (content != bytes->file_content()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": is not the byte tokenizer's file, the only one of this name that is read"));
  }
  return bytes;
}

}  // namespace moebius
