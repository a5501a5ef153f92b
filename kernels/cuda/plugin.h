// What the plugin libmoebius_cuda.so offers to the program that opens it (kernels/open_cuda.h).
#pragma once

#include <memory>
#include <string>

#include "kernels/backend.h"
#include "kernels/device_collectives.h"

namespace moebius {

struct CudaPlugin {
  int64_t layout;  // kCudaPluginLayout of its code

  // Of devices that can be used; 0: `reason` says why.
  int (*num_devices)(std::string* reason);

  // `end_process`: the program's EndProcess.
  std::shared_ptr<Accelerator> (*open)(int ordinal,
                                       void (*end_process)(const std::string&, int exit_code));

  // How a device that it has opened talks to others, by NCCL, whose `library` dlopen is asked for.
  // Null: it cannot be used, and `reason` says why.
  std::shared_ptr<DeviceCollectives> (*open_collectives)(std::shared_ptr<Accelerator> device,
                                                         const std::string& library,
                                                         std::string* reason);
};

// Types of C++ pass between both, so they must be built from one source: their sizes tell.
inline constexpr int64_t kCudaPluginLayout =
    sizeof(Context) + 1000 * sizeof(Tensor) + 1000000 * sizeof(kernels::Backend) +
    1000000000 * int64_t{sizeof(CudaPlugin)} + 1000000000000 * int64_t{sizeof(Accelerator)};

inline constexpr char kCudaPluginSymbol[] = "MoebiusCudaPlugin";
using GetCudaPlugin = const CudaPlugin* (*)();

}  // namespace moebius
