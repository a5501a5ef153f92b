#include "core/tensor/context.h"

#include <cstring>

namespace moebius {

Tensor Context::Empty(DType dtype, const Shape& shape, const char* name) {
  return Tensor(dtype, shape, device_arena_.Allocate(shape.num_elements() * SizeOf(dtype), name));
}

Tensor Context::Zeros(DType dtype, const Shape& shape, const char* name) {
  Tensor x = Empty(dtype, shape, name);
  if (device_.is_meta() || x.bytes() == 0) return x;
  if (accelerator_ != nullptr) {
    accelerator_->Clear(x.storage()->data(), x.bytes());
  } else {
    std::memset(x.raw(), 0, static_cast<size_t>(x.bytes()));
  }
  return x;
}

}  // namespace moebius
