// Writes a TensorBoard event file (docs/formats/metrics.md): one an attempt. For one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/base/files.h"
#include "core/base/status.h"
#include "train/metrics/metrics.h"

namespace moebius {

// CRC-32C (Castagnoli) as records store it.
uint32_t MaskedCrc32c(std::span<const std::byte> bytes);

// A record around `data`.
std::string FrameRecord(const std::string& data);

class TensorBoardWriter {
 public:
  // Makes `directory` if missing, and in it the file of this attempt, which goes on after
  // `resumed_step`.
  static absl::StatusOr<TensorBoardWriter> Create(const std::string& directory, int attempt,
                                                  int64_t resumed_step);

  // An event each, visible to readers at once.
  absl::Status Write(const StepMetrics& metrics);
  absl::Status Write(const EvalMetrics& metrics);

  const std::string& path() const { return file_.path(); }

 private:
  explicit TensorBoardWriter(OutputFile file) : file_(std::move(file)) {}

  OutputFile file_;
};

}  // namespace moebius
