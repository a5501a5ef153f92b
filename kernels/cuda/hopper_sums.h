// From the sums of a tile (hopper_pipeline.h) to matrices. A thread has pairs of neighbours: four
// threads fill 32 bytes of F32, or 16 of BF16, of a row at once.
#pragma once

#include <bit>
#include <cstring>

#include "kernels/cuda/hopper.h"

namespace moebius::cuda {

// Two neighbours of a row, read and written at once.
template <class Y>
struct alignas(2 * sizeof(Y)) Pair {
  Y x, y;
};
template <class Y>
__device__ __forceinline__ Pair<float> GetPair(const Y* slots) {
  Pair<Y> pair;
  memcpy(&pair, __builtin_assume_aligned(slots, sizeof pair), sizeof pair);
  return {Get(pair.x), Get(pair.y)};
}
__device__ __forceinline__ void PutPair(float* slots, float x, float y) {
  *reinterpret_cast<Pair<float>*>(slots) = {x, y};
}
__device__ __forceinline__ Pair<BF16> Rounded(float x, float y) {
  return std::bit_cast<Pair<BF16>>(PackBF16(x, y));
}
__device__ __forceinline__ void PutPair(BF16* slots, float x, float y) {
  *reinterpret_cast<Pair<BF16>*>(slots) = Rounded(x, y);
}

// Where a thread's sums of a tile stand in a matrix [rows, columns] with `stride`, of which
// `rows` and `columns` are left where the tile begins. Widths are a multiple of 8.
class SumsPlace {
 public:
  __device__ SumsPlace(int64_t rows, int64_t columns, int64_t stride) {
    const int row = static_cast<int>(threadIdx.x) / kWarpgroup * 64 + AccumulatorRow(0);
    at_ = row * stride + AccumulatorColumn(0);
    next_ = 8 * stride;
    columns_ = static_cast<int>(columns);
    for (int half = 0; half < 2; ++half) inside_[half] = row + 8 * half < rows;
  }

  // Calls visit(offset, sum, next sum) for each pair inside.
  template <int n, class Visit>
  __device__ __forceinline__ void ForPairs(float (&sums)[n], const Visit& visit) const {
#pragma unroll
    for (int i = 0; i < n; i += 2) {
      const int half = i / 2 % 2, column = i / 4 * 8;
      if (inside_[half] && column < columns_)
        visit(at_ + half * next_ + column, sums[i], sums[i + 1]);
    }
  }

 private:
  int64_t at_, next_;
  int columns_;
  bool inside_[2];
};

// y (+)= sums; what y became is in sums.
template <int n, class Y>
__device__ __forceinline__ void StoreSums(const SumsPlace& place, float (&sums)[n], Y* y,
                                          bool accumulate) {
  if (accumulate) {
    place.ForPairs(sums, [&](int64_t at, float& a, float& b) {
      const Pair<float> before = GetPair(y + at);
      a += before.x, b += before.y;
    });
  }
  place.ForPairs(sums, [&](int64_t at, float& a, float& b) { PutPair(y + at, a, b); });
}

// h = silu(gate) * y, of y as it was rounded.
template <int n>
__device__ __forceinline__ void StoreSwiGlu(const SumsPlace& place, float (&y)[n], const BF16* gate,
                                            BF16* h) {
  const auto silu = [](float g) { return __fdividef(g, 1.0f + __expf(-g)); };
  place.ForPairs(y, [&](int64_t at, float& a, float& b) {
    const Pair<float> g = GetPair(gate + at);
    const Pair<BF16> rounded = Rounded(a, b);
    PutPair(h + at, silu(g.x) * Get(rounded.x), silu(g.y) * Get(rounded.y));
  });
}

}  // namespace moebius::cuda
