#include "tests/bench/device.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/base/random.h"
#include "core/tensor/copy.h"
#include "kernels/elementwise.h"
#include "kernels/open_cuda.h"

namespace moebius {
namespace {

// For the device to read.
template <class T>
Tensor FromHost(Context& context, DType dtype, std::span<const T> numbers, const char* name) {
  const Tensor x = EmptyOnHost(dtype, {std::ssize(numbers)}, name, context);
  std::ranges::copy(numbers, x.data<T>());
  return ToDevice(x, name, context);
}

// y [n] = x [m] over and over, by the device: what is there is copied behind itself.
void Repeat(const Tensor& x, const Tensor& y, Context& context) {
  const int64_t n = y.size();
  int64_t filled = std::min(x.size(), n);
  kernels::Cast({.x = x.Slice(0, filled), .y = y.Slice(0, filled)}, context);
  while (filled < n) {
    const int64_t more = std::min(filled, n - filled);
    kernels::Cast({.x = y.Slice(0, more), .y = y.Slice(filled, filled + more)}, context);
    filled += more;
  }
}

}  // namespace

absl::StatusOr<Context::Options> OnGpu(Context::Options options) {
  options.device = {DeviceKind::kCuda, 0};
  options.chunk_elements = kCudaChunkElements;
  ASSIGN_OR_RETURN(options.accelerator, OpenCuda(CudaPluginPath(), 0));
  return options;
}

double SecondsPerCall(Context& context, int64_t num_calls, const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  context.Wait();
  const auto start = Clock::now();
  for (int64_t i = 0; i < num_calls; ++i) call();
  context.Wait();
  const std::chrono::duration<double> seconds = Clock::now() - start;
  return seconds.count() / static_cast<double>(num_calls);
}

int64_t CallsInARow(Context& context, const std::function<void()>& call) {
  constexpr double kSeconds = 0.01;  // a wait takes about 10 us
  constexpr double kLoading = 1;     // of the code, in the first call
  constexpr int64_t kMost = 1000;
  if (context.accelerator() == nullptr) return 1;
  if (SecondsPerCall(context, 1, call) > kLoading) return 1;
  const double seconds = SecondsPerCall(context, 1, call);
  return std::clamp(static_cast<int64_t>(kSeconds / seconds), int64_t{1}, kMost);
}

Tensor NormalTensor(Context& context, DType dtype, const Shape& shape, const char* name,
                    double scale) {
  constexpr uint64_t kPeriod = 8191;
  std::vector<float> numbers;
  const RandomStream stream(1, name);
  for (uint64_t i = 0; i < kPeriod; ++i) {
    numbers.push_back(static_cast<float>(scale * stream.Normal(i)));
  }
  const Tensor x = context.Empty(dtype, shape, name);
  Repeat(TensorOf(context, numbers, "period"), x.Reshape({x.size()}), context);
  return x;
}

Tensor TensorOf(Context& context, std::span<const float> numbers, const char* name) {
  return FromHost(context, DType::kF32, numbers, name);
}

Tensor TensorOf(Context& context, std::span<const int32_t> numbers, const char* name) {
  return FromHost(context, DType::kI32, numbers, name);
}

std::vector<double> NumbersOf(const Tensor& x, Context& context) {
  const Tensor here = ToHost(x, context);
  const auto numbers = here.span<double>();
  return {numbers.begin(), numbers.end()};
}

}  // namespace moebius
