// Checks that the entries of kernels share.
#pragma once

#include "core/tensor/tensor.h"

namespace moebius::kernels {

// Of one shape and one floating point dtype.
inline void CheckAlike(const Tensor& x, const Tensor& y) {
  CHECK_EQ(x.shape(), y.shape());
  CHECK(x.dtype() == y.dtype()) << NameOf(x.dtype()) << " and " << NameOf(y.dtype());
  CHECK(IsFloat(x.dtype())) << NameOf(x.dtype());
}

inline void CheckDType(const Tensor& x, DType dtype) {
  CHECK(x.dtype() == dtype) << NameOf(x.dtype()) << ", should be " << NameOf(dtype);
}

// The dtype of what is kept precise (weights, statistics) beside operands of `dtype`.
inline DType PreciseDType(DType dtype) { return dtype == DType::kF64 ? DType::kF64 : DType::kF32; }

}  // namespace moebius::kernels
