// NVIDIA GPUs, through the plugin that is built with the program.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/base/status.h"
#include "core/tensor/accelerator.h"
#include "kernels/device_collectives.h"

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

// NCCL's library, looked for where the system looks for libraries (LD_LIBRARY_PATH).
inline constexpr char kNcclLibrary[] = "libnccl.so.2";

// How a device opened by OpenCuda talks to those of other ranks. NotFound: the library cannot be
// used; the message says why.
absl::StatusOr<std::shared_ptr<DeviceCollectives>> OpenDeviceCollectives(
    const std::string& plugin_path, const std::shared_ptr<Accelerator>& device,
    const std::string& library = kNcclLibrary);

}  // namespace moebius
