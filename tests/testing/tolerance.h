// Tolerances derived from dtype and reduction length.
#pragma once

#include "core/tensor/tensor.h"

namespace moebius::test {

// The largest relative error of rounding to nearest.
double UnitRoundoff(DType dtype);

// The relative error to expect of a result in `dtype` whose sums of `reduction_length` terms were
// kept in fp32 (in double where dtype is F64): the result's own rounding, and the random walk of
// the roundings of the sum. `roundings`: how often values are rounded to dtype on the way.
double Tolerance(DType dtype, int64_t reduction_length, int roundings = 1);

// Expects every element of `actual` within Tolerance of `expected` (F64, same shape), relative to
// the element or to the root mean square of all, whichever is larger.
void ExpectClose(const Tensor& actual, const Tensor& expected, int64_t reduction_length,
                 int roundings = 1);

// As ExpectClose, for sums of products one factor of which was rounded to the dtype: `magnitudes`
// (F64, same shape) are the sums of the magnitudes of those products. Each moves by one more
// rounding at most, whatever the sum cancels to.
void ExpectCloseOfRounded(const Tensor& actual, const Tensor& expected, int64_t reduction_length,
                          const Tensor& magnitudes);

// Expects the same bytes.
void ExpectSameBits(const Tensor& actual, const Tensor& expected);

}  // namespace moebius::test
