#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"

namespace moebius::cpu {
namespace {

// How a sum is cut into tasks that share no element: tiles of columns and ranges of tokens, whose
// sums stay in a cache. There are as many as threads, or a multiple.
struct SumCut {
  SumCut(int64_t tokens, int64_t N, int64_t threads, int64_t panel) {
    constexpr int64_t kMaxSums = int64_t{1} << 20;
    const int64_t tiles = RoundUp(CeilDiv(N, kMaxColumns), threads);
    columns = RoundUp(CeilDiv(N, tiles), panel);
    num_tiles = CeilDiv(N, columns);
    num_ranges = std::clamp<int64_t>(
        std::max(CeilDiv(threads, num_tiles), CeilDiv(tokens * columns, kMaxSums)), 1, tokens);
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
  const SumCut cut(T, N, context.pool().num_threads(), simd.panel);

  const bool narrow = args.y.dtype() == DType::kBF16;
  const int64_t products = kRowBlock * cut.columns, most_tokens = CeilDiv(T, cut.num_ranges);
  const int64_t sums = narrow ? (most_tokens + 1) * cut.columns : 0;
  const auto sum_task = [&, T = T, N = N](int64_t task, float* a) {
    const int64_t range = task / cut.num_tiles, n = task % cut.num_tiles * cut.columns;
    const int64_t t0 = T * range / cut.num_ranges, t1 = T * (range + 1) / cut.num_ranges;
    const int64_t width = std::min(cut.columns, N - n), y_row = narrow ? cut.columns : N;
    float *const c = a + kOperand, *const sum = c + products;
    float* const y = narrow ? sum : args.y.data<float>() + t0 * N + n;
    for (int64_t t = 0; t < t1 - t0 && (narrow || !args.accumulate); ++t) {
      std::fill_n(y + t * y_row, width, 0.0f);
    }
    for (size_t group = 0; group < groups.size(); ++group) {
      const Group rows = WithinTokens(groups[group], tokens, t0, t1);
      for (int64_t begin = rows.begin; begin < rows.end; begin += kRowBlock) {
        const int64_t end = std::min(begin + kRowBlock, rows.end);
        MultiplyTile({.x = args.x,
                      .rows_of_x = RowsOf(Tensor()),
                      .begin = begin,
                      .end = end,
                      .image = ImageOf(args.w, static_cast<int64_t>(group), N, num_units, simd),
                      .n = n,
                      .columns = width,
                      .next = nullptr,
                      .c = c,
                      .c_row = cut.columns,
                      .accumulate = false},
                     units, a);
        for (int64_t r = begin; r < end; ++r) {
          if (r + kAhead < end) {
            Prefetch(y + (tokens[r + kAhead] - t0) * y_row, width * 4);
          }
          simd.add_scaled_row(y + (tokens[r] - t0) * y_row, c + (r - begin) * cut.columns, width,
                              weights != nullptr ? weights[r] : 1.0f);
        }
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
  ForWithScratch(context, cut.num_tiles * cut.num_ranges, kOperand + products + sums,
                 "linear.scratch", sum_task);
}

}  // namespace moebius::cpu
