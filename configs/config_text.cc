#include "configs/config_text.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace moebius {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

}  // namespace

absl::StatusOr<std::string> ReadConfigText(const std::string& file) {
  struct stat info;
  if (stat(file.c_str(), &info) != 0) {
    const std::string reason = absl::StrCat(file, ": cannot be read: ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(reason) : absl::InvalidArgumentError(reason);
  }
  if (S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": is a folder, must be a config file"));
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": cannot be read: ", std::strerror(errno)));
  }
  std::string text(kMaxBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(stream.gcount()));
  return text;
}

absl::StatusOr<std::string> PlainText(const std::string& name, const std::string& text) {
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": is larger than ", kMaxBytes,
                                                   " bytes, must be a config in text format"));
  }
  if (text.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": holds a NUL byte, must be a config in text format"));
  }
  constexpr char kByteOrderMark[] = "\xEF\xBB\xBF";
  return std::string(absl::StripPrefix(text, kByteOrderMark));
}

}  // namespace moebius
