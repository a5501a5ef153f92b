#include "tests/testing/random_tensors.h"

#include <cstring>
#include <type_traits>

#include "core/base/random.h"

namespace moebius::test {
namespace {

constexpr uint64_t kSeed = 20;

template <class T>
double ToDouble(T x) {
  if constexpr (std::is_same_v<T, BF16>) {
    return static_cast<float>(x);
  } else {
    return static_cast<double>(x);
  }
}

template <class T>
T FromDouble(double x) {
  if constexpr (std::is_same_v<T, BF16>) {
    return BF16(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}

// Calls fn(T{}) with the dtype's C++ type.
template <class Fn>
void WithType(DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::kF64:
      return fn(double{});
    case DType::kF32:
      return fn(float{});
    case DType::kBF16:
      return fn(BF16{});
    case DType::kI32:
      return fn(int32_t{});
    case DType::kI64:
      return fn(int64_t{});
    case DType::kU8:
      return fn(uint8_t{});
  }
}

// Between memory of the host and a tensor wherever it lies.
void Move(const void* from, void* to, const Tensor& x) {
  if (x.bytes() == 0) return;
  if (x.device().is_cpu()) {
    std::memcpy(to, from, static_cast<size_t>(x.bytes()));
    return;
  }
  CHECK(x.device().is_cuda()) << "no bytes";
  Accelerator& accelerator = *x.storage()->accelerator();
  accelerator.Copy(from, to, x.bytes());
  accelerator.Wait();
}

}  // namespace

Tensor FromValues(Context& ctx, DType dtype, const Shape& shape,
                  const std::vector<double>& values) {
  const Tensor x = ctx.Empty(dtype, shape, "test");
  CHECK_EQ(x.size(), std::ssize(values));
  WithType(dtype, [&]<class T>(T) {
    std::vector<T> rounded;
    for (const double value : values) rounded.push_back(FromDouble<T>(value));
    Move(rounded.data(), x.address(), x);
  });
  return x;
}

std::vector<std::byte> ToBytes(const Tensor& x) {
  std::vector<std::byte> bytes(x.bytes());
  Move(x.address(), bytes.data(), x);
  return bytes;
}

std::vector<double> ToDoubles(const Tensor& x) {
  std::vector<double> values;
  WithType(x.dtype(), [&]<class T>(T) {
    std::vector<T> rounded(x.size());
    Move(x.address(), rounded.data(), x);
    for (const T& value : rounded) values.push_back(ToDouble(value));
  });
  return values;
}

Tensor RandomTensor(Context& ctx, DType dtype, const Shape& shape, std::string_view name,
                    double scale) {
  const RandomStream stream(kSeed, name);
  std::vector<double> values(shape.num_elements());
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * stream.Normal(i);
  return FromValues(ctx, dtype, shape, values);
}

Tensor RandomInts(Context& ctx, const Shape& shape, int64_t bound, std::string_view name) {
  const RandomStream stream(kSeed, name);
  std::vector<double> values(shape.num_elements());
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<double>(stream.Below(i, static_cast<uint64_t>(bound)));
  return FromValues(ctx, DType::kI32, shape, values);
}

Tensor Convert(Context& ctx, const Tensor& x, DType dtype) {
  return FromValues(ctx, dtype, x.shape(), ToDoubles(x));
}

Values Normal(Context& cpu, DType dtype, const Shape& shape, std::string_view name) {
  const Tensor x = RandomTensor(cpu, dtype, shape, name);
  return {x, Convert(cpu, x, DType::kF64)};
}

}  // namespace moebius::test
