#include "kernels/cpu/linear.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTilesPerThread = 2;  // so that threads end together

struct RowBlock {
  int64_t group;
  Group rows;
};

// Large blocks first.
std::vector<RowBlock> RowBlocks(const std::vector<Group>& groups) {
  std::vector<RowBlock> blocks;
  for (size_t j = 0; j < groups.size(); ++j) {
    const int64_t begin = groups[j].begin, size = groups[j].size();
    const int64_t num_blocks = CeilDiv(size, kRowBlock);
    for (int64_t i = 0; i < num_blocks; ++i) {
      blocks.push_back({static_cast<int64_t>(j),
                        {begin + size * i / num_blocks, begin + size * (i + 1) / num_blocks}});
    }
  }
  std::ranges::stable_sort(blocks, std::greater(),
                           [](const RowBlock& block) { return block.rows.size(); });
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

  const int64_t num_tiles = num_blocks * CeilDiv(N, columns);

  const bool narrow = args.y.dtype() == DType::kBF16;
  const int64_t scratch = kOperand + (narrow ? kRowBlock * columns + columns : 0);
  const auto multiply_tile = [&, N = N](int64_t tile, int64_t next, float* a) {
    const auto [group, rows] = blocks[tile % num_blocks];
    const int64_t n = tile / num_blocks * columns, width = std::min(columns, N - n);
    float* const sums = a + kOperand;
    if (next < 0) next = tile;
    const RowBlock& next_block = blocks[next % num_blocks];
    const TileArgs product = {
        .x = args.x,
        .rows_of_x = RowsOf(args.rows),
        .rows = rows,
        .image = ImageOf(args.image, group, N, num_units, simd),
        .n = n,
        .columns = width,
        .next_rows = next_block.rows,
        .next_image = ImageOf(args.image, next_block.group, N, num_units, simd) +
                      next / num_blocks * columns * num_units,
        .c = narrow ? sums : args.y.data<float>() + rows.begin * N + n,
        .c_row = narrow ? columns : N,
        .accumulate = args.accumulate && !narrow};
    TileProduct(product, units).Run(a);
    if (!narrow) return;
    NarrowRows({.sums = sums,
                .rows = rows.size(),
                .columns = width,
                .sums_row = columns,
                .y = reinterpret_cast<uint16_t*>(args.y.raw()) + rows.begin * N + n,
                .y_row = N,
                .accumulate = args.accumulate,
                .before = sums + kRowBlock * columns},
               simd);
  };
  ForFromBothEnds(context, num_tiles, scratch, "linear.scratch", multiply_tile);
}

}  // namespace moebius::cpu
