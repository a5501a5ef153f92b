#include "tests/testing/device_context.h"

#include <cstdlib>

#include "kernels/open_cuda.h"

namespace moebius::test {

Context::Options DeviceContext::OnTestDevice(Options options) {
  const char* plugin = std::getenv("MOEBIUS_TEST_CUDA_PLUGIN");
  if (plugin == nullptr || options.device.is_meta()) return options;
  auto accelerator = OpenCuda(plugin, 0);
  CHECK(accelerator.ok()) << accelerator.status().message();
  options.device = {DeviceKind::kCuda, 0};
  options.accelerator = *std::move(accelerator);
  return options;
}

}  // namespace moebius::test
