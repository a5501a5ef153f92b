#include "core/base/checksum.h"

#include <xxhash.h>

#include "absl/strings/str_format.h"

namespace moebius {

uint64_t Checksum(std::span<const std::byte> bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

uint64_t Checksum(std::string_view bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

StreamingChecksum::StreamingChecksum() : state_(XXH3_createState()) {
  XXH3_64bits_reset(state_.get());
}
StreamingChecksum::~StreamingChecksum() = default;
StreamingChecksum::StreamingChecksum(StreamingChecksum&&) noexcept = default;
StreamingChecksum& StreamingChecksum::operator=(StreamingChecksum&&) noexcept = default;

void StreamingChecksum::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

void StreamingChecksum::Add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
}

uint64_t StreamingChecksum::value() const { return XXH3_64bits_digest(state_.get()); }

std::string ChecksumText(uint64_t checksum) { return absl::StrFormat("xxh3:%016x", checksum); }

}  // namespace moebius
