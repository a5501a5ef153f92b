#include "core/tensor/context.h"

#include "core/tensor/copy.h"

namespace moebius {

Tensor Context::Empty(DType dtype, const Shape& shape, const char* name) {
  return Tensor(dtype, shape, device_arena_.Allocate(shape.num_elements() * SizeOf(dtype), name));
}

Tensor Context::Zeros(DType dtype, const Shape& shape, const char* name) {
  Tensor x = Empty(dtype, shape, name);
  Clear(x);
  return x;
}

}  // namespace moebius
