// What the forward and the backward pass of attention on plain cores share: 64 queries of a head
// beside 64 keys. Letters and formulas as in kernels/attention.h.
#pragma once

#include "kernels/cuda/attention_operands.h"
#include "kernels/cuda/tiles.h"

namespace moebius::cuda {

// A tile of numbers that one thread writes for others; 4: no two lanes read from one bank.
using SharedTile = float[kTile][kTile + 4];

// The columns of one head in the rows of a tile; zero beyond both.
template <class T>
struct HeadTile {
  T* first;
  int64_t stride, count, C;

  __device__ float operator()(int64_t row, int64_t column) const {
    return row < count && column < C ? Get(first[row * stride + column]) : 0.0f;
  }
  __device__ void Set(int64_t row, int64_t column, float value, bool accumulate = false) const {
    if (row < count && column < C) Put(first[row * stride + column], value, accumulate);
  }
};

// Of a tensor of queries [.., H * C] or of keys [.., G * C].
template <class T>
__device__ inline HeadTile<T> HeadOf(T* x, const Positions& at, int64_t heads, int64_t head,
                                     int64_t C) {
  return {x + (at.row * heads + head) * C, heads * C, at.count, C};
}

template <class T>
__device__ inline bool Sees(const AttentionOperands<T>& x, int64_t sequence, int64_t query,
                            int64_t key) {
  if (key > query) return false;
  if (x.ids == nullptr) return true;
  const int32_t* ids = x.ids + sequence * x.S;
  return ids[query] >= 0 && ids[query] == ids[key];
}

// s of a query and a key, minus infinity where it does not see it, or either lies beyond its tile.
template <class T>
__device__ inline void Scores(const AttentionOperands<T>& x, int64_t head, const Positions& queries,
                              const Positions& keys, TileSums& scores) {
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) scores[i][j] = 0;
  }
  AddProducts<Contiguous::kDepth, Contiguous::kDepth>(
      x.C, HeadOf(x.q, queries, x.H, head, x.C), HeadOf(x.k, keys, x.G, head / (x.H / x.G), x.C),
      scores);
  for (int i = 0; i < kEach; ++i) {
    const int row = TileRow(i);
    for (int j = 0; j < kEach; ++j) {
      const int column = TileColumn(j);
      const bool seen = row < queries.count && column < keys.count &&
                        Sees(x, queries.sequence, queries.begin + row, keys.begin + column);
      scores[i][j] = seen ? scores[i][j] * x.scale : -INFINITY;
    }
  }
}

// All threads write their numbers of a tile, for all.
__device__ inline void Share(const TileSums& sums, SharedTile& tile) {
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) tile[TileRow(i)][TileColumn(j)] = sums[i][j];
  }
  __syncthreads();
}

// Calls fn(Number<c>{}) with the C of a head in tiles of columns, rounded up.
template <int kN>
struct Number {
  static constexpr int value = kN;
};
template <class Fn>
void WithColumnTiles(int64_t C, const Fn& fn) {
  if (C <= kTile) return fn(Number<1>{});
  if (C <= 2 * kTile) return fn(Number<2>{});
  fn(Number<4>{});
}

}  // namespace moebius::cuda
