// Files, with errors that name them. Thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/base/status.h"

namespace moebius {

absl::StatusOr<std::string> ReadFile(const std::string& path);

// Whole or not at all, also after a power cut: writes a temporary file beside `path`, flushes it to
// disk, renames it, flushes the folder.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view content);

// Flushes a file or a folder to disk.
absl::Status SyncPath(const std::string& path);

// A file mapped read-only for the life of this object.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace moebius
