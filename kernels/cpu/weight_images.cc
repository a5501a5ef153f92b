#include "kernels/cpu/weight_images.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/scratch.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {
namespace {

// Of a block: whole panels, and pairs of rows. Memory is fast where rows are read whole; the copy
// of the longest block fits in half of a second-level cache.
constexpr int64_t kRows = 32, kMaxColumns = 4096;

// Units behind each row of a block's copy: its rows stand an odd number of cache lines apart, so
// that they spread over the sets of a cache.
constexpr int64_t kGap = 16;

int64_t Rows(const Tensor& w) { return w.shape()[w.shape().rank() - 2]; }
int64_t Columns(const Tensor& w) { return w.shape()[w.shape().rank() - 1]; }

}  // namespace

int64_t PackedElements(const WeightDims& dims, DType dtype, const SimdKernels& simd) {
  const int64_t units = Units(dtype, simd).Count(dims.inputs);
  return CeilDiv(dims.outputs, simd.panel) * simd.panel * units *
         (static_cast<int64_t>(sizeof(float)) / SizeOf(dtype));
}

WeightBlocks::WeightBlocks(const Tensor& w, std::span<const PackedImage> images,
                           const SimdKernels& simd)
    : images_(images),
      simd_(simd),
      w_(w.data<float>()),
      N_(Rows(w)),
      K_(Columns(w)),
      e_(w.shape().rank() == 3 ? w.shape()[0] : 1),
      columns_(std::min(kMaxColumns, RoundUp(K_, 2 * kRows))),
      down_(CeilDiv(N_, kRows)),
      across_(CeilDiv(K_, columns_)),
      stride_of_floats_(columns_ + kGap),
      stride_of_pairs_(columns_ / 2 + kGap) {
  CHECK_EQ(kRows % simd.panel, 0);
  for (const PackedImage& image : images) {
    constexpr uintptr_t kLine = 64;
    CHECK_EQ(reinterpret_cast<uintptr_t>(image.tensor.raw()) % kLine, 0u);
    Units(image.tensor.dtype(), simd).pairs ? scratch_of_pairs_ = kRows* stride_of_pairs_
                                            : scratch_of_floats_ = kRows * stride_of_floats_;
  }
}

WeightBlocks::Block WeightBlocks::BlockAt(int64_t block) const {
  const int64_t n = block / across_ % down_ * kRows, k = block % across_ * columns_;
  return {.matrix = block / across_ / down_,
          .n = n,
          .k = k,
          .rows = std::min(kRows, N_ - n),
          .columns = std::min(columns_, K_ - k)};
}

// As floats, pairs, or both; zeros up to a whole panel.
void WeightBlocks::CopyRow(const float* row, int64_t columns, int64_t i, float* scratch) const {
  const int64_t whole = RoundUp(columns, simd_.panel);
  if (scratch_of_floats_ > 0) {
    float* const copy = scratch + i * stride_of_floats_;
    std::memcpy(copy, row, static_cast<size_t>(columns) * sizeof(float));
    std::fill(copy + columns, copy + whole, 0.0f);
  }
  if (scratch_of_pairs_ > 0) {
    auto* const copy =
        reinterpret_cast<uint16_t*>(scratch + scratch_of_floats_ + i * stride_of_pairs_);
    simd_.narrow(row, copy, columns);
    std::fill(copy + columns, copy + whole, uint16_t{0});
  }
}

void WeightBlocks::Write(const Block& block, float* scratch) const {
  const int64_t missing = RoundUp(block.rows, simd_.panel) - block.rows;
  float* const pairs = scratch + scratch_of_floats_;
  if (scratch_of_floats_ > 0) {
    std::fill_n(scratch + block.rows * stride_of_floats_, missing * stride_of_floats_, 0.0f);
  }
  if (scratch_of_pairs_ > 0) {
    std::fill_n(pairs + block.rows * stride_of_pairs_, missing * stride_of_pairs_, 0.0f);
  }
  for (const PackedImage& image : images_) {
    WriteTo(image, block, Units(image.tensor.dtype(), simd_).pairs ? pairs : scratch);
  }
}

void WeightBlocks::WriteTo(const PackedImage& image, const Block& block, float* copy) const {
  const Units units(image.tensor.dtype(), simd_);
  const int64_t panel = simd_.panel, stride = units.pairs ? stride_of_pairs_ : stride_of_floats_;
  const int64_t outputs = image.transposed ? K_ : N_;
  const int64_t depth = units.Count(image.transposed ? N_ : K_);  // of a panel
  float* const to =
      reinterpret_cast<float*>(image.tensor.raw()) + block.matrix * RoundUp(outputs, panel) * depth;
  if (!image.transposed) {
    for (int64_t i = 0; i < block.rows; i += panel) {
      simd_.pack_transposed(copy + i * stride, stride, units.Count(block.columns),
                            to + (block.n + i) * depth + block.k / units.per_unit() * panel);
    }
    return;
  }
  float* const first = to + block.k * depth + block.n / units.per_unit() * panel;
  if (units.pairs) {
    simd_.pack_pairs(reinterpret_cast<const uint16_t*>(copy), 2 * stride, RoundUp(block.rows, 2),
                     block.columns, first, depth * panel);
  } else {
    simd_.pack_rows(copy, stride, block.rows, block.columns, first, depth * panel);
  }
}

void PackWeight(const Tensor& w, const PackedImage& image, Context& context,
                const SimdKernels& simd) {
  const WeightBlocks blocks(w, std::span(&image, 1), simd);
  ForWithScratch(context, blocks.count(), blocks.scratch(), "weight_image.scratch",
                 [&](int64_t i, float* scratch) {
                   blocks.Pack(i, scratch, [](int64_t /*begin*/, int64_t /*size*/) {});
                 });
}

}  // namespace moebius::cpu
