#include "tests/testing/random_tensors.h"

#include "core/base/random.h"

namespace moebius::test {
namespace {

constexpr uint64_t kSeed = 20;

double Read(const Tensor& x, int64_t i) {
  switch (x.dtype()) {
    case DType::kF64:
      return x.data<double>()[i];
    case DType::kF32:
      return x.data<float>()[i];
    case DType::kBF16:
      return static_cast<float>(x.data<BF16>()[i]);
    case DType::kI32:
      return x.data<int32_t>()[i];
    case DType::kI64:
      return static_cast<double>(x.data<int64_t>()[i]);
    case DType::kU8:
      return x.data<uint8_t>()[i];
  }
  CHECK(false);
}

void Write(const Tensor& x, int64_t i, double value) {
  switch (x.dtype()) {
    case DType::kF64:
      x.data<double>()[i] = value;
      return;
    case DType::kF32:
      x.data<float>()[i] = static_cast<float>(value);
      return;
    case DType::kBF16:
      x.data<BF16>()[i] = BF16(static_cast<float>(value));
      return;
    case DType::kI32:
      x.data<int32_t>()[i] = static_cast<int32_t>(value);
      return;
    case DType::kI64:
      x.data<int64_t>()[i] = static_cast<int64_t>(value);
      return;
    case DType::kU8:
      x.data<uint8_t>()[i] = static_cast<uint8_t>(value);
      return;
  }
}

}  // namespace

Tensor FromValues(Context& ctx, DType dtype, const Shape& shape,
                  const std::vector<double>& values) {
  const Tensor x = ctx.Empty(dtype, shape, "test");
  CHECK_EQ(x.size(), std::ssize(values));
  for (int64_t i = 0; i < x.size(); ++i) Write(x, i, values[i]);
  return x;
}

std::vector<double> ToDoubles(const Tensor& x) {
  std::vector<double> values(x.size());
  for (int64_t i = 0; i < x.size(); ++i) values[i] = Read(x, i);
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

Values Normal(Context& ctx, DType dtype, const Shape& shape, std::string_view name) {
  const Tensor x = RandomTensor(ctx, dtype, shape, name);
  return {x, Convert(ctx, x, DType::kF64)};
}

}  // namespace moebius::test
