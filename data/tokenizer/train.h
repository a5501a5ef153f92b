// Tokenizers out of text.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "core/base/status.h"
#include "data/spec.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

// The tokenizer that `spec` describes; SentencePiece learns it from `documents`. The same input
// gives the same tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> TrainTokenizer(const TokenizerSpec& spec,
                                                          std::span<const std::string> documents);

}  // namespace moebius
