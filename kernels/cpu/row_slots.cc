#include "kernels/row_slots.h"

#include <algorithm>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/rows.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kGrain = 32;  // rows of a task

// y = x, and the same `step` elements further on added up, `copies` in all.
template <class T>
MOEBIUS_INLINE void AddUp(const T* x, int64_t copies, int64_t step, T* y, int64_t n) {
  constexpr int64_t kPiece = 64;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t count = std::min(kPiece, n - begin);
    float sums[kPiece];
    for (int64_t d = 0; d < count; ++d) sums[d] = Get(x[begin + d]);
    for (int64_t c = 1; c < copies; ++c) {
      const T* const copy = x + c * step + begin;
      for (int64_t d = 0; d < count; ++d) sums[d] += Get(copy[d]);
    }
    for (int64_t d = 0; d < count; ++d) Put(y[begin + d], sums[d]);
  }
}
MOEBIUS_CLONES void AddUpRow(const float* x, int64_t copies, int64_t step, float* y, int64_t n) {
  AddUp(x, copies, step, y, n);
}
MOEBIUS_CLONES void AddUpRow(const BF16* x, int64_t copies, int64_t step, BF16* y, int64_t n) {
  AddUp(x, copies, step, y, n);
}

}  // namespace

void ScatterRows(const kernels::ScatterRowsArgs& args, Context& ctx) {
  const auto [num_rows, D] = Dims<2>(args.x);
  const int32_t* const at = args.at.data<int32_t>();
  const Write write = WriteOf(args.y, D);
  WithRows(args.x.dtype(), [&, num_rows = num_rows, D = D](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ForRange(ctx, num_rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t c = 0; c < args.copies && at[i] >= 0; ++c) {
          kernels.copy(At<T>(args.x, i * D), At<T>(args.y, (at[i] + c * args.step) * D), write, D);
        }
      }
    });
  });
}

void GatherRows(const kernels::GatherRowsArgs& args, Context& ctx) {
  const auto [num_rows, D] = Dims<2>(args.y);
  const int32_t* const at = args.at.data<int32_t>();
  if (args.copies > 1) {
    return WithType(args.y.dtype(), [&, num_rows = num_rows, D = D]<class T>(T) {
      ForRange(ctx, num_rows, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          if (at[i] < 0) continue;
          AddUpRow(args.x.data<T>() + at[i] * D, args.copies, args.step * D,
                   args.y.data<T>() + i * D, D);
        }
      });
    });
  }
  const Write write = WriteOf(args.y, D);
  WithRows(args.y.dtype(), [&, num_rows = num_rows, D = D](const auto& kernels, auto zero) {
    using T = decltype(zero);
    ForRange(ctx, num_rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (at[i] >= 0) kernels.copy(At<T>(args.x, at[i] * D), At<T>(args.y, i * D), write, D);
      }
    });
  });
}

}  // namespace moebius::cpu
