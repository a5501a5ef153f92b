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

class Sum {
 public:
  Sum(const kernels::LinearSumArgs& args, const Units& units, int64_t threads)
      : args_(args),
        units_(units),
        T_(args.y.shape()[0]),
        N_(args.y.shape()[1]),
        groups_(Groups(args.offsets, args.x.shape()[0])),
        tokens_(args.rows.data<int32_t>()),
        weights_(args.weights.defined() ? args.weights.data<float>() : nullptr),
        narrow_(args.y.dtype() == DType::kBF16),
        cut_(T_, N_, args.x.shape()[0] / std::max<int64_t>(std::ssize(groups_), 1), threads,
             units.simd.panel) {}

  int64_t num_tasks() const { return cut_.num_tiles * cut_.num_ranges; }

  // Floats of scratch for a task: an operand's rows, and sums that are narrowed at the end.
  int64_t scratch() const {
    return kOperand + (narrow_ ? (CeilDiv(T_, cut_.num_ranges) + 1) * cut_.columns : 0);
  }

  void Run(int64_t task, float* scratch) const {
    const int64_t range = task / cut_.num_tiles, n = task % cut_.num_tiles * cut_.columns;
    const Group tokens = {T_ * range / cut_.num_ranges, T_ * (range + 1) / cut_.num_ranges};
    const int64_t columns = std::min(cut_.columns, N_ - n);
    const Sums y = narrow_ ? Sums{scratch + kOperand, cut_.columns}
                           : Sums{args_.y.data<float>() + tokens.begin * N_ + n, N_};
    for (int64_t t = 0; t < tokens.size() && (narrow_ || !args_.accumulate); ++t) {
      std::fill_n(y.begin + t * y.row, columns, 0.0f);
    }
    for (int64_t j = 0; j < std::ssize(groups_); ++j) {
      const Group rows = WithinTokens(groups_[j], tokens_, tokens.begin, tokens.end);
      for (int64_t begin = rows.begin; begin < rows.end; begin += kRowBlock) {
        const Group next = {std::min(begin + kRowBlock, rows.end),
                            std::min(begin + 2 * kRowBlock, rows.end)};
        AddRows(j, {begin, next.begin}, next, n, columns, tokens.begin, y, scratch);
      }
    }
    if (!narrow_) return;
    NarrowRows({.sums = y.begin,
                .rows = tokens.size(),
                .columns = columns,
                .sums_row = y.row,
                .y = reinterpret_cast<uint16_t*>(args_.y.raw()) + tokens.begin * N_ + n,
                .y_row = N_,
                .accumulate = args_.accumulate,
                .before = y.begin + tokens.size() * y.row},
               units_.simd);
  }

 private:
  struct Sums {
    float* begin;  // of the first token
    int64_t row;
  };

  // `rows` of group j, at most kRowBlock, to columns n .. n + columns of the sums.
  void AddRows(int64_t j, const Group& rows, const Group& next, int64_t n, int64_t columns,
               int64_t first_token, const Sums& y, float* a) const {
    std::array<float*, kRowBlock> sums_of_rows;
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      sums_of_rows[r - rows.begin] = y.begin + (tokens_[r] - first_token) * y.row;
    }
    const int64_t num_units = units_.Count(args_.x.shape()[1]);
    const TileArgs product = {.x = args_.x,
                              .rows_of_x = RowsOf(Tensor()),
                              .rows = rows,
                              .image = ImageOf(args_.w, j, N_, num_units, units_.simd),
                              .n = n,
                              .columns = columns,
                              .next_rows = next,
                              .next_image = nullptr,
                              .c = nullptr,
                              .c_row = 0,
                              .accumulate = true,
                              .c_rows = sums_of_rows.data(),
                              .scales = weights_ != nullptr ? weights_ + rows.begin : nullptr};
    TileProduct(product, units_).Run(a);
  }

  const kernels::LinearSumArgs& args_;
  const Units& units_;
  const int64_t T_, N_;
  const std::vector<Group> groups_;
  const int32_t* const tokens_;
  const float* const weights_;
  const bool narrow_;
  const SumCut cut_;
};

}  // namespace

void MultiplySum(const kernels::LinearSumArgs& args, Context& context, const SimdKernels& simd) {
  const Units units(args.x.dtype(), simd);
  const Sum sum(args, units, context.pool().num_threads());
  ForWithScratch(context, sum.num_tasks(), sum.scratch(), "linear.scratch",
                 [&](int64_t task, float* scratch) { sum.Run(task, scratch); });
}

}  // namespace moebius::cpu
