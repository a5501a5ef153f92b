#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTasksPerThread = 2;  // so that threads end together

// How a sum is cut into tasks that share no element: tiles of columns and ranges of tokens, whose
// sums stay in a cache. A tile of columns copies all rows once more, a range reads all weights once
// more: so ranges come first, as long as every group has a block of rows in each.
struct SumCut {
  SumCut(int64_t tokens, int64_t N, int64_t rows_of_group, int64_t threads, int64_t panel) {
    constexpr int64_t kMaxSums = int64_t{1} << 20;
    const int64_t tasks = kTasksPerThread * threads;
    int64_t tiles = CeilDiv(N, kMaxColumns);
    num_ranges = CeilDiv(tokens * CeilDiv(N, tiles), kMaxSums);
    while (tiles * num_ranges < tasks && rows_of_group >= num_ranges * kRowBlock) num_ranges *= 2;
    tiles = RoundUp(tiles, CeilDiv(threads, num_ranges));
    num_ranges = std::min(num_ranges, tokens);
    columns = RoundUp(CeilDiv(N, tiles), panel);
    num_tiles = CeilDiv(N, columns);
  }
  int64_t columns, num_tiles, num_ranges;
};

// The rows of one group within tokens t0 .. t1.
Group WithinTokens(const Group& group, const int32_t* tokens, int64_t t0, int64_t t1) {
  const auto first = [&](int64_t t) {
    return std::lower_bound(tokens + group.begin, tokens + group.end, t) - tokens;
  };
  return {first(t0), first(t1)};
}

}  // namespace

void MultiplySum(const kernels::LinearSumArgs& args, Context& context, const SimdKernels& simd) {
  const int64_t R = args.x.shape()[0];
  const auto [T, N] = Dims<2>(args.y);
  const Units units(args.x.dtype(), simd);
  const int64_t num_units = units.Count(args.x.shape()[1]);
  const std::vector<Group> groups = Groups(args.offsets, R);
  const int32_t* tokens = args.rows.data<int32_t>();
  const float* weights = args.weights.defined() ? args.weights.data<float>() : nullptr;
  const SumCut cut(T, N, R / std::max<int64_t>(std::ssize(groups), 1), context.pool().num_threads(),
                   simd.panel);

  const bool narrow = args.y.dtype() == DType::kBF16;
  const int64_t most_tokens = CeilDiv(T, cut.num_ranges);
  const int64_t sums = narrow ? (most_tokens + 1) * cut.columns : 0;
  const auto sum_task = [&, T = T, N = N](int64_t task, float* a) {
    const int64_t range = task / cut.num_tiles, n = task % cut.num_tiles * cut.columns;
    const int64_t t0 = T * range / cut.num_ranges, t1 = T * (range + 1) / cut.num_ranges;
    const int64_t width = std::min(cut.columns, N - n), y_row = narrow ? cut.columns : N;
    float* const sum = a + kOperand;
    float* const y = narrow ? sum : args.y.data<float>() + t0 * N + n;
    for (int64_t t = 0; t < t1 - t0 && (narrow || !args.accumulate); ++t) {
      std::fill_n(y + t * y_row, width, 0.0f);
    }
    for (size_t group = 0; group < groups.size(); ++group) {
      const Group rows = WithinTokens(groups[group], tokens, t0, t1);
      for (int64_t begin = rows.begin; begin < rows.end; begin += kRowBlock) {
        const Group block = {begin, std::min(begin + kRowBlock, rows.end)};
        std::array<float*, kRowBlock> sums_of_rows;
        for (int64_t r = block.begin; r < block.end; ++r) {
          sums_of_rows[r - begin] = y + (tokens[r] - t0) * y_row;
        }
        const TileArgs product = {
            .x = args.x,
            .rows_of_x = RowsOf(Tensor()),
            .rows = block,
            .image = ImageOf(args.w, static_cast<int64_t>(group), N, num_units, simd),
            .n = n,
            .columns = width,
            .next_rows = {block.end, std::min(block.end + kRowBlock, rows.end)},
            .next_image = nullptr,
            .c = nullptr,
            .c_row = 0,
            .accumulate = true,
            .c_rows = sums_of_rows.data(),
            .scales = weights != nullptr ? weights + begin : nullptr};
        TileProduct(product, units).Run(a);
      }
    }
    if (!narrow) return;
    NarrowRows({.sums = sum,
                .rows = t1 - t0,
                .columns = width,
                .sums_row = cut.columns,
                .y = reinterpret_cast<uint16_t*>(args.y.raw()) + t0 * N + n,
                .y_row = N,
                .accumulate = args.accumulate,
                .before = sum + most_tokens * cut.columns},
               simd);
  };
  ForWithScratch(context, cut.num_tiles * cut.num_ranges, kOperand + sums, "linear.scratch",
                 sum_task);
}

}  // namespace moebius::cpu
