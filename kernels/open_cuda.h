// NVIDIA GPUs, through the plugin that is built with the program.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/base/status.h"
#include "core/tensor/accelerator.h"

namespace moebius {

// Context::Options::chunk_elements of a GPU: 1 GiB of logits at a time, so that its large products
// read the output head a few times.
inline constexpr int64_t kCudaChunkElements = int64_t{1} << 28;

// "<folder of the program>/libmoebius_cuda.so"
std::string CudaPluginPath();

// How many GPUs the plugin can use, at least one. NotFound: there is no such file, or no GPU; the
// message says why.
absl::StatusOr<int> NumCudaDevices(const std::string& plugin_path);

// REQUIRES: 0 <= ordinal < NumCudaDevices.
absl::StatusOr<std::shared_ptr<Accelerator>> OpenCuda(const std::string& plugin_path, int ordinal);

}  // namespace moebius
