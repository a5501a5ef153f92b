// The bytes of a file, decompressed on the way when its name ends in .gz or .zst.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/status.h"

namespace moebius {

class ByteSource {
 public:
  // Errors name the file.
  static absl::StatusOr<std::unique_ptr<ByteSource>> Open(const std::string& path);
  virtual ~ByteSource() = default;

  // Fills the beginning of `out` and returns how many bytes; 0 at the end alone. DataLoss names the
  // file and the offset in it when compressed data is damaged or ends early. REQUIRES: out is not
  // empty.
  virtual absl::StatusOr<size_t> Read(std::span<char> out) = 0;

  // Bytes of the file itself that are done with.
  virtual int64_t offset() const = 0;
};

}  // namespace moebius
