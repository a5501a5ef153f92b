// The context of a test that may run on any device: on the CPU, or, where MOEBIUS_TEST_CUDA_PLUGIN
// names a plugin (kernels/open_cuda.h), on its first GPU. Operands in F64 lie there, too, and are
// computed by the host: so every device is compared with the reference by the same test.
#pragma once

#include "core/tensor/context.h"

namespace moebius::test {

class DeviceContext : public Context {
 public:
  explicit DeviceContext(const Options& options) : Context(OnTestDevice(options)) {}
  DeviceContext() : DeviceContext(Options{}) {}

 private:
  static Options OnTestDevice(Options options);
};

}  // namespace moebius::test
