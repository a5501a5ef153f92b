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

// The same without waiting for the disk: whole to readers, whatever happens to this process, but a
// power cut may lose it.
absl::Status ReplaceFile(const std::string& path, absl::string_view content);

// Flushes a file or a folder to disk.
absl::Status SyncPath(const std::string& path);

// A file that is written in pieces. What was written is on disk once `Close` has returned OK.
class OutputFile {
 public:
  // Creates the file, or empties one that exists.
  static absl::StatusOr<OutputFile> Create(const std::string& path);
  // Keeps what is there: writing beyond `size()` appends.
  static absl::StatusOr<OutputFile> Append(const std::string& path);
  OutputFile() = default;
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  ~OutputFile();  // closes; what was not synced may be lost in a power cut

  absl::Status Write(std::span<const std::byte> bytes) { return WriteAt(size_, bytes); }
  absl::Status Write(absl::string_view text) { return Write(std::as_bytes(std::span(text))); }
  absl::Status WriteAt(int64_t offset, std::span<const std::byte> bytes);
  absl::Status Sync();
  absl::Status Close();  // syncs first

  bool is_open() const { return fd_ >= 0; }
  int64_t size() const { return size_; }  // the end of what was written furthest
  const std::string& path() const { return path_; }

 private:
  static absl::StatusOr<OutputFile> Open(const std::string& path, int flags);

  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// A lock file, held until this object or the process ends, however it ends.
class FileLock {
 public:
  // Writes into the file who holds it. FailedPrecondition: someone does already.
  static absl::StatusOr<FileLock> Acquire(const std::string& path);
  FileLock() = default;
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  int fd_ = -1;
};

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
