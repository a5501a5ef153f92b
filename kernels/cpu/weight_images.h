// Packed images of weights on the CPU: the forms that products of F32 and BF16 read.
//
// An image holds, for each matrix, panels of SimdKernels::panel outputs; within a panel the units
// of an input (a float, or a pair of bf16 where the processor multiplies pairs) stand side by side
// for all its outputs. What a panel lacks is zero. A bf16 image on a processor without products of
// pairs holds floats.
//
// A weight is packed in blocks of rows and columns, each into all images at once from a copy that
// stands in a cache: so packing is as fast as memory, and an update can do it on its way.
#pragma once

#include <span>

#include "core/tensor/context.h"
#include "kernels/cpu/simd.h"

namespace moebius::cpu {

struct WeightDims {
  int64_t outputs = 0, inputs = 0;  // of the product that reads the image
};

// Elements of `dtype` in the image of one matrix.
int64_t PackedElements(const WeightDims& dims, DType dtype, const SimdKernels& simd);

// Of a weight [N, K] or [e, N, K]. The product that reads it has N outputs, or K if `transposed`.
struct PackedImage {
  bool transposed = false;
  Tensor tensor;  // [e, PackedElements]; F32 or BF16
};

// The blocks of one weight and its images. They may be packed in any order, on any threads.
class WeightBlocks {
 public:
  // w F32. `w`, `images` and `simd` outlive this.
  WeightBlocks(const Tensor& w, std::span<const PackedImage> images, const SimdKernels& simd);

  int64_t count() const { return e_ * down_ * across_; }
  int64_t scratch() const { return scratch_of_floats_ + scratch_of_pairs_; }  // floats, for Pack

  // Packs one block. It calls ready(begin, size) for each of the block's rows, whose elements of w
  // start at `begin`, and reads them then.
  template <class Ready>
  void Pack(int64_t block, float* scratch, const Ready& ready) const {
    const Block at = BlockAt(block);
    for (int64_t i = 0; i < at.rows; ++i) {
      const int64_t begin = (at.matrix * N_ + at.n + i) * K_ + at.k;
      ready(begin, at.columns);
      CopyRow(w_ + begin, at.columns, i, scratch);
    }
    Write(at, scratch);
  }

 private:
  struct Block {
    int64_t matrix, n, k, rows, columns;  // from row n and column k on
  };
  Block BlockAt(int64_t block) const;
  void CopyRow(const float* row, int64_t columns, int64_t i, float* scratch) const;
  void Write(const Block& block, float* scratch) const;
  void WriteTo(const PackedImage& image, const Block& block, float* scratch) const;

  const std::span<const PackedImage> images_;
  const SimdKernels& simd_;
  const float* const w_;
  const int64_t N_, K_, e_, columns_, down_, across_;  // columns of a block; blocks of a matrix
  const int64_t stride_of_floats_, stride_of_pairs_;   // units
  int64_t scratch_of_floats_ = 0, scratch_of_pairs_ = 0;
};

// The image of w (F32).
void PackWeight(const Tensor& w, const PackedImage& image, Context& context,
                const SimdKernels& simd);

}  // namespace moebius::cpu
