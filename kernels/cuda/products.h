// The products of kernels/linear.h as kernels read them, and what linear_hopper.cu offers to
// linear.cu.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/linear.h"

namespace moebius::cuda {

// Columns of y (+)= x times the weights of a row's group.
template <class T, class Y>
struct Product {
  const T* x;
  const int32_t *rows, *offsets;
  const T* w;                 // of the first column
  int64_t w_group, w_stride;  // from one group, and from one row of a matrix, to the next
  Y* y;
  int64_t num_rows, num_groups, inputs, columns, y_stride;
  bool accumulate;
  const T* gate = nullptr;  // laid out as y; or null, and h too
  T* h = nullptr;           // silu(gate) * y
};

// dw (+)= dy^T x for each group.
template <class T>
struct WeightGradient {
  const T *dy, *x;
  const int32_t *dy_rows, *x_rows, *offsets;
  float* dw;
  int64_t num_rows, num_groups, N, K;
  bool accumulate;
};

__device__ inline int64_t RowAt(const int32_t* rows, int64_t r) {
  return rows == nullptr ? r : rows[r];
}

// Start the same on tensor cores and return true, if the device has those of Hopper and the
// operands suit them: BF16, inputs and outputs a multiple of 8, pointers of 16 bytes.
// `transposed`: outputs of a weight lie side by side, for w^T x; otherwise inputs ([N, K], w x).
template <class Y>
bool MultiplyOnHopper(const Product<BF16, Y>& product, bool transposed, Context& ctx);
// Of `product`, transposed and without y: what it means for gate and up.
bool SwiGluGradientOnHopper(const Product<BF16, float>& product,
                            const kernels::LinearSwiGluGradientArgs& args, Context& ctx);
bool AddGradientOnHopper(const WeightGradient<BF16>& gradient, Context& ctx);

}  // namespace moebius::cuda
