// A token for each byte.
#pragma once

#include "data/tokenizer/tokenizer.h"

namespace moebius {

// An id for each byte value and 256 for the separator.
class ByteTokenizer : public Tokenizer {
 public:
  static constexpr char kFileName[] = "tokenizer.json";

  void Encode(std::string_view bytes, std::vector<int32_t>& ids) const override;
  std::string Decode(std::span<const int32_t> ids) const override;
  int64_t vocab_size() const override { return 257; }
  int32_t separator() const override { return 256; }
  std::string file_name() const override { return kFileName; }

  // The same tokenizer in the format of Hugging Face's tokenizers: byte-level BPE without merges.
  std::string file_content() const override;
};

}  // namespace moebius
