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

}  // namespace

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
