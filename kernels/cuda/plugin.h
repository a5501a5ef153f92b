// What the plugin libmoebius_cuda.so offers to the program that opens it (kernels/open_cuda.h).
#pragma once

#include <memory>
#include <string>

#include "kernels/backend.h"

namespace moebius {

// Types of C++ pass between both, so they must be built from one source: their sizes tell.
inline constexpr int64_t kCudaPluginLayout =
    sizeof(Context) + 1000 * sizeof(Tensor) + 1000000 * sizeof(kernels::Backend);

struct CudaPlugin {
  int64_t layout;  // kCudaPluginLayout of its code

  // Of devices that can be used; 0: `reason` says why.
  int (*num_devices)(std::string* reason);

  // `end_process`: the program's EndProcess.
  std::shared_ptr<Accelerator> (*open)(int ordinal,
                                       void (*end_process)(const std::string&, int exit_code));
};

inline constexpr char kCudaPluginSymbol[] = "MoebiusCudaPlugin";
using GetCudaPlugin = const CudaPlugin* (*)();

}  // namespace moebius
