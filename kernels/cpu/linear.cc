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

  const int64_t num_tiles = num_blocks * CeilDiv(N, columns);

  const bool narrow = args.y.dtype() == DType::kBF16;
  const int64_t scratch = kOperand + (narrow ? kRowBlock * columns + columns : 0);
  const auto multiply_tile = [&, N = N](int64_t tile, float* a) {
    const auto [group, begin, end] = blocks[tile % num_blocks];
    const int64_t n = tile / num_blocks * columns, width = std::min(columns, N - n);
    float* const sums = a + kOperand;
    // This thread's next tile, if all take as long.
    const int64_t next = std::min(tile + context.pool().num_threads(), num_tiles - 1);
    const int64_t next_n = next / num_blocks * columns;
    MultiplyTile({.x = args.x,
                  .rows_of_x = RowsOf(args.rows),
                  .begin = begin,
                  .end = end,
                  .image = ImageOf(args.image, group, N, num_units, simd),
                  .n = n,
                  .columns = width,
                  .next = ImageOf(args.image, blocks[next % num_blocks].group, N, num_units, simd) +
                          next_n * num_units,
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
  ForWithScratch(context, num_tiles, scratch, "linear.scratch", multiply_tile);
}

}  // namespace moebius::cpu
