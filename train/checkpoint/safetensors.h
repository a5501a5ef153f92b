// The safetensors format (docs/formats/checkpoint.md): named tensors in one file, little-endian,
// row-major. The reader trusts nothing: a file that it opens is whole and has no byte that no
// tensor owns. Errors name the file, the tensor and the rule: DataLoss for a file that breaks a
// rule, InvalidArgument for a dtype or a number of dimensions that Moebius does not have.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/base/files.h"
#include "core/base/status.h"
#include "core/tensor/tensor.h"

namespace moebius {

class SafetensorsFile {
 public:
  struct Entry {
    DType dtype = DType::kF32;
    Shape shape;
    std::span<const std::byte> bytes;  // lives as long as the file; may be unaligned
  };

  // Maps the file and checks its header; the tensors' bytes are not touched.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  int64_t file_bytes() const { return static_cast<int64_t>(file_.bytes().size()); }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // NotFound names the tensor that is missing.
  absl::StatusOr<Entry> Find(const std::string& name) const;

 private:
  MappedFile file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

// Writes a file tensor by tensor, in any order, without holding more than one of them.
class SafetensorsWriter {
 public:
  struct Description {
    std::string name;
    DType dtype = DType::kF32;
    Shape shape;
  };

  // Lays the file out: larger element types first, then by name. The same descriptions give the
  // same bytes. REQUIRES: names are unique and none is "__metadata__".
  static absl::StatusOr<SafetensorsWriter> Create(
      const std::string& path, std::vector<Description> tensors,
      const std::map<std::string, std::string>& metadata = {});

  // REQUIRES: `name` was described, and `bytes` has its size.
  absl::Status Write(const std::string& name, std::span<const std::byte> bytes);

  // The file is on disk. REQUIRES: every tensor was written.
  absl::Status Close();

  int64_t file_bytes() const { return file_bytes_; }

 private:
  struct Slot {
    int64_t offset = 0;
    int64_t bytes = 0;
    bool written = false;
  };

  OutputFile file_;
  int64_t file_bytes_ = 0;
  std::map<std::string, Slot> slots_;
};

}  // namespace moebius
