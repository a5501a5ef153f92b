// Seeded tensors of any dtype, and tensors to and from doubles, for tests. Tensors are made on the
// context's device, and read wherever they lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/tensor/context.h"

namespace moebius::test {

// From a list, rounded to the dtype (integers truncated).
Tensor FromValues(Context& ctx, DType dtype, const Shape& shape, const std::vector<double>& values);
std::vector<double> ToDoubles(const Tensor& x);
std::vector<std::byte> ToBytes(const Tensor& x);

// Standard normal times `scale`; the same numbers for the same name and size, rounded to the dtype.
Tensor RandomTensor(Context& ctx, DType dtype, const Shape& shape, std::string_view name,
                    double scale = 1);

// Standard normal values of a dtype, and the same values in F64 for the reference.
struct Values {
  Tensor tensor, exact;
};
Values Normal(Context& cpu, DType dtype, const Shape& shape, std::string_view name);

// Uniform in [0, bound).
Tensor RandomInts(Context& ctx, const Shape& shape, int64_t bound, std::string_view name);

// The same values in another dtype, on the context's device.
Tensor Convert(Context& ctx, const Tensor& x, DType dtype);

}  // namespace moebius::test
