#include "kernels/cuda/plugin.h"

#include "core/base/check.h"
#include "kernels/cuda/accelerator.h"

namespace {

std::shared_ptr<moebius::Accelerator> Open(int ordinal,
                                           void (*end_process)(const std::string&, int)) {
  moebius::EndProcessBy(end_process);
  return moebius::cuda::OpenDevice(ordinal);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const moebius::CudaPlugin* MoebiusCudaPlugin() {
  static constexpr moebius::CudaPlugin kPlugin = {
      .layout = moebius::kCudaPluginLayout, .num_devices = moebius::cuda::NumDevices, .open = Open};
  return &kPlugin;
}
