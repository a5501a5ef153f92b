#include "parallel/ordered_reduction.h"

#include <algorithm>
#include <type_traits>

#include "core/base/check.h"

namespace moebius {
namespace {

constexpr int64_t kBlock = 1024;  // the sums of a block stay in the first-level cache

// What other ranks have read must be theirs no more before it is written: line after line that
// takes long.
template <class Out>
[[gnu::always_inline]] inline void PrefetchToWrite(Out* y, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(Out);
  for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(y + i, 1);
}

// Inlined into a function for each instruction set. Where `out` is one of the parts, every element
// is read before it is written: the loops stay independent of each other's order.
template <Reduction kReduction, class T, class Out>
[[gnu::always_inline]] inline void ReduceBlocks(std::span<const std::byte* const> parts,
                                                int64_t count, Out* out) {
  using Accumulator = std::conditional_t<std::is_same_v<T, BF16>, float, T>;
  const auto add = [](Accumulator a, T b) __attribute__((always_inline)) {
    const auto x = static_cast<Accumulator>(b);
    return kReduction == Reduction::kSum ? a + x : a < x ? x : a;
  };
  Accumulator sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const auto* first = reinterpret_cast<const T*>(parts.front()) + begin;
    const auto* last = reinterpret_cast<const T*>(parts.back()) + begin;
    Out* const y = out + begin;
    PrefetchToWrite(y + n, std::min(kBlock, count - begin - n));
    if (parts.size() == 1) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) y[i] = static_cast<Out>(static_cast<Accumulator>(first[i]));
      continue;
    }
    if (parts.size() == 2) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) {
        y[i] = static_cast<Out>(add(static_cast<Accumulator>(first[i]), last[i]));
      }
      continue;
    }
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<Accumulator>(first[i]);
    for (size_t r = 1; r + 1 < parts.size(); ++r) {
      const auto* x = reinterpret_cast<const T*>(parts[r]) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] = add(sum[i], x[i]);
    }
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<Out>(add(sum[i], last[i]));
  }
}

template <Reduction kReduction, class T, class Out>
void ReduceGeneric(std::span<const std::byte* const> parts, int64_t count, Out* out) {
  ReduceBlocks<kReduction, T>(parts, count, out);
}

#if defined(__x86_64__)
template <Reduction kReduction, class T, class Out>
[[gnu::target("avx2,prfchw")]] void ReduceAvx2(std::span<const std::byte* const> parts,
                                               int64_t count, Out* out) {
  ReduceBlocks<kReduction, T>(parts, count, out);
}
#endif

template <Reduction kReduction, class T, class Out>
void ReduceAs(std::span<const std::byte* const> parts, int64_t count, Out* out) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return ReduceAvx2<kReduction, T>(parts, count, out);
#endif
  ReduceGeneric<kReduction, T>(parts, count, out);
}

template <class T, class Out>
void Reduce(Reduction reduction, std::span<const std::byte* const> parts, int64_t count, Out* out) {
  if (reduction == Reduction::kSum) {
    ReduceAs<Reduction::kSum, T>(parts, count, out);
  } else {
    ReduceAs<Reduction::kMax, T>(parts, count, out);
  }
}

}  // namespace

void ReduceInRankOrder(Reduction reduction, DType dtype, std::span<const std::byte* const> parts,
                       int64_t count, DType out_dtype, std::byte* out) {
  CHECK(!parts.empty());
  if (dtype == DType::kBF16 && out_dtype == DType::kF32) {
    return Reduce<BF16>(reduction, parts, count, reinterpret_cast<float*>(out));
  }
  CHECK(dtype == out_dtype) << NameOf(dtype) << " added up in " << NameOf(out_dtype);
  const auto reduce = [&]<class T>(T* typed_out) { Reduce<T>(reduction, parts, count, typed_out); };
  switch (dtype) {
    case DType::kF64:
      return reduce(reinterpret_cast<double*>(out));
    case DType::kF32:
      return reduce(reinterpret_cast<float*>(out));
    case DType::kBF16:
      return reduce(reinterpret_cast<BF16*>(out));
    case DType::kI32:
      return reduce(reinterpret_cast<int32_t*>(out));
    case DType::kI64:
      return reduce(reinterpret_cast<int64_t*>(out));
    case DType::kU8:
      CHECK(false) << "bytes are not numbers";
  }
}

}  // namespace moebius
