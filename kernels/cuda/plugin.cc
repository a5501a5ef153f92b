#include "kernels/cuda/plugin.h"

#include "core/base/check.h"
#include "kernels/cuda/accelerator.h"
#include "kernels/cuda/nccl.h"

namespace {

std::shared_ptr<moebius::Accelerator> Open(int ordinal,
                                           void (*end_process)(const std::string&, int)) {
  moebius::EndProcessBy(end_process);
  return moebius::cuda::OpenDevice(ordinal);
}

std::shared_ptr<moebius::DeviceCollectives> OpenCollectives(
    std::shared_ptr<moebius::Accelerator> device, const std::string& library, std::string* reason) {
  return moebius::cuda::OpenNcclCollectives(
      std::static_pointer_cast<moebius::cuda::Device>(std::move(device)), library, reason);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const moebius::CudaPlugin* MoebiusCudaPlugin() {
  static constexpr moebius::CudaPlugin kPlugin = {.layout = moebius::kCudaPluginLayout,
                                                  .num_devices = moebius::cuda::NumDevices,
                                                  .open = Open,
                                                  .open_collectives = OpenCollectives};
  return &kPlugin;
}
