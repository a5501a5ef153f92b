#include "tests/testing/device_context.h"

#include <cstdlib>

#include "kernels/open_cuda.h"

namespace moebius::test {

Context::Options OnTestDevice(Context::Options options) {
  const char* plugin = std::getenv("MOEBIUS_TEST_CUDA_PLUGIN");
  if (plugin == nullptr || options.device.is_meta()) return options;
  auto accelerator = OpenCuda(plugin, 0);
  CHECK(accelerator.ok()) << accelerator.status().message();
  options.device = {DeviceKind::kCuda, 0};
  options.accelerator = *std::move(accelerator);
  return options;
}

Values Normal(DeviceContext& ctx, DType dtype, const Shape& shape, std::string_view name) {
  const Tensor x = RandomTensor(ctx, dtype, shape, name);
  return {x, ctx.Exact(x)};
}

}  // namespace moebius::test
