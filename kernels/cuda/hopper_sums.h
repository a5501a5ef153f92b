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
__device__ __forceinline__ Pair<Y> GetPair(const Y* slots) {
  Pair<Y> pair;
  memcpy(&pair, __builtin_assume_aligned(slots, sizeof pair), sizeof pair);
  return pair;
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
  __device__ SumsPlace(int64_t rows, int64_t columns, int64_t stride)
      : at_(Row(0) * stride + AccumulatorColumn(0)),
        next_(8 * stride),
        columns_(static_cast<int>(columns)),
        inside_{Row(0) < rows, Row(1) < rows} {}

  // Of the tile: a thread has sums of two.
  static __device__ __forceinline__ int Row(int half) {
    return static_cast<int>(threadIdx.x) / kWarpgroup * 64 + AccumulatorRow(2 * half);
  }
  __device__ __forceinline__ bool HasRow(int half) const { return inside_[half]; }

  // Calls visit(offset, sum, next sum) for each pair inside.
  template <int n, class Visit>
  __device__ __forceinline__ void ForPairs(float (&sums)[n], const Visit& visit) const {
#pragma unroll
    for (int i = 0; i < n; i += 2) {
      if (Inside(i)) visit(Offset(i), sums[i], sums[i + 1]);
    }
  }

  // Calls visit(offset, read(offset), i) for pairs sums[i], sums[i + 1] inside. kAtOnce of them are
  // read before the first is visited: one wait for memory instead of many.
  template <int n, int kAtOnce, class Read, class Visit>
  __device__ __forceinline__ void ForPairsRead(const Read& read, const Visit& visit) const {
#pragma unroll
    for (int begin = 0; begin < n; begin += 2 * kAtOnce) {
      decltype(read(int64_t{})) values[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (Inside(begin + 2 * j)) values[j] = read(Offset(begin + 2 * j));
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (Inside(begin + 2 * j)) visit(Offset(begin + 2 * j), values[j], begin + 2 * j);
      }
    }
  }

  // Of sums[i], of its row, and of the tile but for the thread's own columns.
  static constexpr __device__ __forceinline__ int Half(int i) { return i / 2 % 2; }
  static constexpr __device__ __forceinline__ int Column(int i) { return i / 4 * 8; }

 private:
  __device__ __forceinline__ bool Inside(int i) const {
    return inside_[Half(i)] && Column(i) < columns_;
  }
  __device__ __forceinline__ int64_t Offset(int i) const {
    return at_ + Half(i) * next_ + Column(i);
  }

  const int64_t at_, next_;
  const int columns_;
  const bool inside_[2];
};

// What becomes of a tile's sums, which begin at row `row` and column `column` of a matrix
// [R, `stride`].

// y (+)= sums; what y became before it was rounded is in sums.
template <class Y>
struct StoreY {
  Y* y;
  int64_t stride;
  bool accumulate;

  template <int n>
  __device__ __forceinline__ void operator()(const SumsPlace& place, int64_t row, int64_t column,
                                             float (&sums)[n]) const {
    Y* const first = y + row * stride + column;
    if (accumulate) {
      place.ForPairs(sums, [&](int64_t at, float& a, float& b) {
        const Pair<Y> before = GetPair(first + at);
        a += Get(before.x), b += Get(before.y);
      });
    }
    place.ForPairs(sums, [&](int64_t at, float& a, float& b) { PutPair(first + at, a, b); });
  }
};

__device__ __forceinline__ float FastLogistic(float z) {
  return __fdividef(1.0f, 1.0f + __expf(-z));
}

// h = silu(gate) * y as well, of y as it was rounded.
struct StoreSwiGlu {
  StoreY<BF16> y;
  const BF16* gate;
  BF16* h;

  template <int n>
  __device__ __forceinline__ void operator()(const SumsPlace& place, int64_t row, int64_t column,
                                             float (&sums)[n]) const {
    y(place, row, column, sums);
    const int64_t first = row * y.stride + column;
    place.ForPairsRead<n, 8>([&](int64_t at) { return GetPair(gate + first + at); },
                             [&](int64_t at, const Pair<BF16>& g, int i) {
                               const Pair<BF16> rounded = Rounded(sums[i], sums[i + 1]);
                               PutPair(h + first + at, Silu(Get(g.x)) * Get(rounded.x),
                                       Silu(Get(g.y)) * Get(rounded.y));
                             });
  }

 private:
  static __device__ __forceinline__ float Silu(float g) { return g * FastLogistic(g); }
};

// The sums are d = w^T dy: what they mean for gate and up, and h = weight * silu(gate) * up; of
// silu(gate) * up * d the sums over each kPart columns, [R, num_parts]. Weights and parts may be
// null.
struct StoreSwiGluGradient {
  static constexpr int kPart = 128;

  const BF16 *gate, *up;
  const float* weights;
  BF16 *dgate, *dup, *h;
  float* parts;
  int64_t stride, num_parts;

  template <int n>
  __device__ __forceinline__ void operator()(const SumsPlace& place, int64_t row, int64_t column,
                                             float (&sums)[n]) const {
    float weight[2] = {1, 1}, of_rows[2][2 * n / kPart] = {};
    for (int half = 0; half < 2; ++half) {
      if (weights != nullptr && place.HasRow(half)) weight[half] = weights[row + place.Row(half)];
    }
    const int64_t first = row * stride + column;
    place.ForPairsRead<n, 4>(
        [&](int64_t at) {
          return Inputs{GetPair(gate + first + at), GetPair(up + first + at)};
        },
        [&](int64_t at, const Inputs& in, int i) {
          const int half = place.Half(i);
          const One x = Differentiate(in.gate.x, in.up.x, sums[i], weight[half]);
          const One y = Differentiate(in.gate.y, in.up.y, sums[i + 1], weight[half]);
          PutPair(dgate + first + at, x.dgate, y.dgate);
          PutPair(dup + first + at, x.dup, y.dup);
          PutPair(h + first + at, weight[half] * x.h, weight[half] * y.h);
          of_rows[half][place.Column(i) / kPart] += x.h * sums[i] + y.h * sums[i + 1];
        });
    if (parts == nullptr) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 2 * n / kPart; ++i) {
        float sum = of_rows[half][i];  // of four threads, which have the row's columns
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
        const int64_t part = column / kPart + i;
        if (LaneIndex() % 4 == 0 && place.HasRow(half) && part < num_parts) {
          parts[(row + place.Row(half)) * num_parts + part] = sum;
        }
      }
    }
  }

 private:
  struct Inputs {
    Pair<BF16> gate, up;
  };
  struct One {
    float dgate, dup, h;
  };
  static __device__ __forceinline__ One Differentiate(BF16 gate, BF16 up, float d, float weight) {
    const float g = Get(gate), u = Get(up), s = FastLogistic(g), ds = weight * d * s;
    return {ds * u * (1.0f + g * (1.0f - s)), ds * g, g * s * u};
  }
};

}  // namespace moebius::cuda
