// From bytes to token ids and back, without loss: Decode(Encode(x)) == x for every string of bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moebius {

// Thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends the ids of `bytes`; never the separator.
  virtual void Encode(std::string_view bytes, std::vector<int32_t>& ids) const = 0;

  // The bytes of the ids; separators and other control tokens have none.
  // REQUIRES: ids in [0, vocab_size()).
  virtual std::string Decode(std::span<const int32_t> ids) const = 0;

  // All ids, the separator included.
  virtual int64_t vocab_size() const = 0;

  // The id that stands before every document.
  virtual int32_t separator() const = 0;

  // Name and content of the file that LoadTokenizer reads back.
  virtual std::string file_name() const = 0;
  virtual std::string file_content() const = 0;
};

}  // namespace moebius
