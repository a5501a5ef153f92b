#include "core/base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <utility>

namespace moebius {
namespace {

absl::Status FileError(absl::string_view operation, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot ", operation));
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0644)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool ok() const { return fd_ >= 0; }
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status WriteAll(int file, const std::string& path, absl::string_view content) {
  while (!content.empty()) {
    const ssize_t count = ::write(file, content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("write", path);
    content.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

// Several processes and threads may replace a file at once: each writes a temporary file of its
// own.
absl::Status Replace(const std::string& path, absl::string_view content, bool flush) {
  static std::atomic<int> counter = 0;
  const std::string temporary = absl::StrCat(path, ".tmp.", ::getpid(), ".", counter++);
  const auto write = [&]() -> absl::Status {
    const Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file.ok()) return FileError("create", temporary);
    RETURN_IF_ERROR(WriteAll(file.get(), temporary, content));
    if (flush && ::fsync(file.get()) != 0) return FileError("flush", temporary);
    return absl::OkStatus();
  };
  absl::Status status = write();
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = FileError("rename to", path);
  }
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  if (!file.ok()) return FileError("open", path);
  std::string content;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("read", path);
    if (count == 0) return content;
    content.append(buffer, static_cast<size_t>(count));
  }
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view content) {
  RETURN_IF_ERROR(Replace(path, content, /*flush=*/true));
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return SyncPath(folder.empty() ? "." : folder);
}

absl::Status ReplaceFile(const std::string& path, absl::string_view content) {
  return Replace(path, content, /*flush=*/false);
}

absl::Status SyncPath(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  if (!file.ok()) return FileError("open", path);
  if (::fsync(file.get()) != 0) return FileError("flush", path);
  return absl::OkStatus();
}

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path) {
  return Open(path, O_WRONLY | O_CREAT | O_TRUNC);
}

absl::StatusOr<OutputFile> OutputFile::Append(const std::string& path) {
  return Open(path, O_WRONLY | O_CREAT);
}

absl::StatusOr<OutputFile> OutputFile::Open(const std::string& path, int flags) {
  OutputFile file;
  file.path_ = path;
  file.fd_ = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (file.fd_ < 0) return FileError("create", path);
  struct stat info;
  if (::fstat(file.fd_, &info) != 0) return FileError("inspect", path);
  file.size_ = static_cast<int64_t>(info.st_size);
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(std::exchange(other.size_, 0)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

absl::Status OutputFile::WriteAt(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("write", path_);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += count;
  }
  size_ = std::max(size_, offset);
  return absl::OkStatus();
}

absl::Status OutputFile::Sync() {
  if (::fsync(fd_) != 0) return FileError("flush", path_);
  return absl::OkStatus();
}

absl::Status OutputFile::Close() {
  RETURN_IF_ERROR(Sync());
  if (::close(std::exchange(fd_, -1)) != 0) return FileError("close", path_);
  return absl::OkStatus();
}

absl::StatusOr<FileLock> FileLock::Acquire(const std::string& path) {
  FileLock lock;
  lock.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock.fd_ < 0) return FileError("create", path);
  if (::flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError("lock", path);
    const auto holder = ReadFile(path);
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": held by ", holder.ok() ? *holder : "another process"));
  }
  char host[256] = "this host";
  ::gethostname(host, sizeof host - 1);
  const std::string holder = absl::StrCat("process ", ::getpid(), " on ", host);
  if (::ftruncate(lock.fd_, 0) != 0 || ::pwrite(lock.fd_, holder.data(), holder.size(), 0) < 0) {
    return FileError("write", path);
  }
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  if (!file.ok()) return FileError("open", path);
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return FileError("inspect", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  MappedFile mapped;
  mapped.path_ = path;
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return mapped;
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) return FileError("map", path);
  mapped.bytes_ = {static_cast<const std::byte*>(address), size};
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
}

}  // namespace moebius
