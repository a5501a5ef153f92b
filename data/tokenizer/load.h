// Tokenizers out of files.
#pragma once

#include <memory>
#include <string>

#include "core/base/status.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

// The tokenizer that lies in a folder (prepared data or a checkpoint): a SentencePiece model in
// tokenizer.model, or else the byte tokenizer in tokenizer.json. NotFound if there is neither;
// InvalidArgument names a file that is not one of these.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& folder);

}  // namespace moebius
