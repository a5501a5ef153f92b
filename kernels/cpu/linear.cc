#include "kernels/cpu/linear.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTilesPerThread = 2;  // so that threads end together

struct RowBlock {
  int64_t group, begin, end;
};

std::vector<RowBlock> RowBlocks(const std::vector<Group>& groups) {
  std::vector<RowBlock> blocks;
  for (size_t j = 0; j < groups.size(); ++j) {
    const auto [begin, end] = groups[j];
    const int64_t num_blocks = CeilDiv(end - begin, kRowBlock);
    for (int64_t i = 0; i < num_blocks; ++i) {
      blocks.push_back({static_cast<int64_t>(j), begin + (end - begin) * i / num_blocks,
                        begin + (end - begin) * (i + 1) / num_blocks});
    }
  }
  return blocks;
}

// One panel from the rows w [width, K] of its outputs.
void PackRowsOfOutputs(const Units& units, const float* w, int64_t K, int64_t width, float* panel,
                       float* scratch) {
  if (!units.pairs) return units.simd.transpose_panel(w, K, width, K, panel);
  const int64_t num_units = units.Count(K);
  for (int64_t n = 0; n < width; ++n) {
    scratch[(n + 1) * num_units - 1] = 0;  // K may be odd
    units.simd.narrow(w + n * K, reinterpret_cast<uint16_t*>(scratch + n * num_units), K);
  }
  units.simd.transpose_panel(scratch, num_units, width, num_units, panel);
}

// One panel from `width` columns of w [N, K], whose rows are inputs.
void PackRowsOfInputs(const Units& units, const float* w, int64_t N, int64_t K, int64_t width,
                      float* panel, float* scratch) {
  const SimdKernels& simd = units.simd;
  uint16_t *const first = reinterpret_cast<uint16_t*>(scratch), *const second = first + simd.panel;
  for (int64_t n = 0; n < N; n += units.per_unit(), panel += simd.panel) {
    if (!units.pairs) {
      simd.spread(w + n * K, width, panel, 0);
      continue;
    }
    const bool last = n + 1 == N;
    simd.narrow(w + n * K, first, width);
    if (!last) simd.narrow(w + (n + 1) * K, second, width);
    simd.interleave(first, last ? nullptr : second, panel, width);
    std::fill(panel + width, panel + simd.panel, 0.0f);
  }
}

}  // namespace

int64_t PackedElements(const WeightDims& dims, DType dtype, const SimdKernels& simd) {
  const int64_t units = Units(dtype, simd).Count(dims.inputs);
  return CeilDiv(dims.outputs, simd.panel) * simd.panel * units *
         (static_cast<int64_t>(sizeof(float)) / SizeOf(dtype));
}

void PackWeight(const Tensor& w, bool transposed, const Tensor& image, Context& context,
                const SimdKernels& simd) {
  const int rank = w.shape().rank();
  const int64_t e = rank == 3 ? w.shape()[0] : 1, N = w.shape()[rank - 2], K = w.shape()[rank - 1];
  const Units units(image.dtype(), simd);
  const int64_t outputs = transposed ? K : N, inputs = transposed ? N : K;
  const int64_t num_panels = CeilDiv(outputs, simd.panel), num_units = units.Count(inputs);
  // Two rows of a panel's inputs in bf16, or all rows of its outputs.
  const int64_t scratch = units.pairs ? simd.panel * (transposed ? 1 : num_units) : 0;
  const auto pack_panel = [&](int64_t i, float* scratch) {
    const int64_t begin = i % num_panels * simd.panel;
    const int64_t width = std::min(simd.panel, outputs - begin);
    const float* from = w.data<float>() + i / num_panels * N * K;
    float* to = reinterpret_cast<float*>(image.raw()) + i * num_units * simd.panel;
    if (transposed) {
      PackRowsOfInputs(units, from + begin, N, K, width, to, scratch);
    } else {
      PackRowsOfOutputs(units, from + begin * K, K, width, to, scratch);
    }
  };
  ForWithScratch(context, e * num_panels, scratch, "weight_image.scratch", pack_panel);
}

void Multiply(const MultiplyArgs& args, Context& context, const SimdKernels& simd) {
  const auto [R, N] = Dims<2>(args.y);
  const Units units(args.x.dtype(), simd);
  const int64_t num_units = units.Count(args.x.shape()[1]);
  const std::vector<RowBlock> blocks = RowBlocks(Groups(args.offsets, R));
  const int64_t num_blocks = std::ssize(blocks);
  const int64_t enough = kTilesPerThread * context.pool().num_threads();
  int64_t columns = kMaxColumns;
  while (columns > 2 * simd.panel && num_blocks * CeilDiv(N, columns) < enough) columns /= 2;
  columns = std::min(columns, CeilDiv(N, simd.panel) * simd.panel);

  const bool narrow = args.y.dtype() == DType::kBF16;
  const int64_t scratch = kOperand + (narrow ? kRowBlock * columns + columns : 0);
  const auto multiply_tile = [&, N = N](int64_t tile, float* a) {
    const auto [group, begin, end] = blocks[tile % num_blocks];
    const int64_t n = tile / num_blocks * columns, width = std::min(columns, N - n);
    float* const sums = a + kOperand;
    MultiplyTile({.x = args.x,
                  .rows_of_x = RowsOf(args.rows),
                  .begin = begin,
                  .end = end,
                  .image = ImageOf(args.image, group, N, num_units, simd),
                  .n = n,
                  .columns = width,
                  .c = narrow ? sums : args.y.data<float>() + begin * N + n,
                  .c_row = narrow ? columns : N,
                  .accumulate = args.accumulate && !narrow},
                 units, a);
    if (!narrow) return;
    NarrowRows({.sums = sums,
                .rows = end - begin,
                .columns = width,
                .sums_row = columns,
                .y = reinterpret_cast<uint16_t*>(args.y.raw()) + begin * N + n,
                .y_row = N,
                .accumulate = args.accumulate,
                .before = sums + kRowBlock * columns},
               simd);
  };
  ForWithScratch(context, num_blocks * CeilDiv(N, columns), scratch, "linear.scratch",
                 multiply_tile);
}

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& context,
                          const SimdKernels& simd) {
  const int64_t N = args.dy.shape()[1], K = args.x.shape()[1];
  const int64_t R = args.dy_rows.defined() ? args.dy_rows.size() : args.dy.shape()[0];
  const RowsOf rows_of_dy(args.dy_rows), rows_of_x(args.x_rows);
  const Units units(args.x.dtype(), simd);
  const std::vector<Group> groups = Groups(args.offsets, R);
  const int64_t e = std::ssize(groups);
  int64_t height = kMaxDepth, columns = kMaxDepth;
  const auto num_tiles = [&] { return e * CeilDiv(N, height) * CeilDiv(K, columns); };
  while (num_tiles() < kTilesPerThread * context.pool().num_threads() && height > 32) {
    height > columns ? height /= 2 : columns /= 2;
  }
  const int64_t down = CeilDiv(N, height), across = CeilDiv(K, columns);

  constexpr int64_t kTransposed = kMaxDepth * kAStride;  // floats of a copied block of dy
  const int64_t panels = kMaxDepth * std::max(columns, simd.panel);
  const auto multiply_tile = [&](int64_t tile, float* a) {
    const int64_t j = tile / (down * across);
    const int64_t n = tile / across % down * height, k = tile % across * columns;
    const int64_t rows = std::min(height, N - n), width = std::min(columns, K - k);
    const auto [begin, end] = groups[j];
    float *const b = a + kTransposed, *const row = b + panels;
    float* dw = args.dw.data<float>() + (j * N + n) * K + k;
    int64_t r = begin;
    bool accumulate = args.accumulate;
    do {
      const int64_t depth = std::min(kMaxDepth, units.Count(end - r));
      for (int64_t u = 0; u < depth; ++u, r += units.per_unit()) {
        const bool last = r + 1 == end;
        units.AcrossRows(args.dy, rows_of_dy[r] * N + n, last ? -1 : rows_of_dy[r + 1] * N + n,
                         rows, a + u * kAStride);
        units.AcrossRows(args.x, rows_of_x[r] * K + k, last ? -1 : rows_of_x[r + 1] * K + k, width,
                         row);
        simd.spread(row, width, b + u * simd.panel, depth * simd.panel);
      }
      units.product({.m = rows,
                     .n = width,
                     .k = depth,
                     .a = a,
                     .a_transposed = true,
                     .b = b,
                     .b_panel = depth * simd.panel,
                     .b_step = simd.panel,
                     .c = dw,
                     .c_row = K,
                     .accumulate = accumulate});
      accumulate = true;
    } while (r < end);
  };
  ForWithScratch(context, e * down * across, kTransposed + panels + columns, "linear.scratch",
                 multiply_tile);
}

}  // namespace moebius::cpu
