// XXH3 checksums (64 bits): they find damage, not forgery. About as fast as memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct XXH3_state_s;

namespace moebius {

// Thread-safe. Different seeds give independent functions of the same bytes.
uint64_t Checksum(std::span<const std::byte> bytes, uint64_t seed = 0);
uint64_t Checksum(std::string_view bytes, uint64_t seed = 0);

// The same value for bytes that arrive in parts. For one thread at a time.
class StreamingChecksum {
 public:
  StreamingChecksum();
  ~StreamingChecksum();
  StreamingChecksum(StreamingChecksum&&) noexcept;
  StreamingChecksum& operator=(StreamingChecksum&&) noexcept;

  void Add(std::span<const std::byte> bytes);
  uint64_t value() const;  // of all bytes so far

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

// "xxh3:" and 16 hexadecimal digits, as manifests store it.
std::string ChecksumText(uint64_t checksum);

}  // namespace moebius
