// The context of a test that may run on any device: on the CPU, or, where MOEBIUS_TEST_CUDA_PLUGIN
// names a plugin (kernels/open_cuda.h), on its first GPU. What it computes is compared with the
// reference in F64, which computes on host(): so every device is held to the same test.
#pragma once

#include <memory>

#include "core/tensor/context.h"
#include "tests/testing/random_tensors.h"

namespace moebius::test {

// `options` with the test's device.
Context::Options OnTestDevice(Context::Options options);

class DeviceContext : public Context {
 public:
  explicit DeviceContext(const Options& options)
      : Context(OnTestDevice(options)), num_threads_(options.num_threads) {}
  DeviceContext() : DeviceContext(Options{}) {}

  // Of the CPU: this one, if it is.
  Context& host() {
    if (accelerator() == nullptr) return *this;
    if (host_ == nullptr) host_ = std::make_unique<Context>(Options{.num_threads = num_threads_});
    return *host_;
  }
  // What computes in `dtype`.
  Context& of(DType dtype) { return dtype == DType::kF64 ? host() : *this; }
  // For the reference: a copy of `x` that the host can read, in F64 if it is of a float.
  Tensor Exact(const Tensor& x) {
    return x.defined() ? Convert(host(), x, IsFloat(x.dtype()) ? DType::kF64 : x.dtype()) : x;
  }

 private:
  const int num_threads_;
  std::unique_ptr<Context> host_;
};

// Those of random_tensors.h: the exact ones are the host's.
Values Normal(DeviceContext& ctx, DType dtype, const Shape& shape, std::string_view name);

}  // namespace moebius::test
