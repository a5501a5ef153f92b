// What the forward and the backward pass of attention share: 64 queries of a head beside 64 keys.
// Letters and formulas as in kernels/attention.h.
#pragma once

#include <climits>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/tiles.h"

namespace moebius::cuda {

// A tile of numbers that one thread writes for others; 4: no two lanes read from one bank.
using SharedTile = float[kTile][kTile + 4];

template <class T>
struct AttentionOperands {
  const T *q, *k, *v;
  const int32_t* ids;  // null: one document
  int64_t S, H, G, C;
  int64_t num_chunks, chunk_length, chunk_begin[2];
  float scale;  // 1 / sqrt(C)
};

template <class T>
AttentionOperands<T> OperandsOf(const kernels::AttentionShape& shape, const Tensor& q,
                                const Tensor& k, const Tensor& v, const Tensor& ids) {
  const kernels::QueryChunks chunks = shape.query_chunks();
  return {.q = q.device_data<T>(),
          .k = k.device_data<T>(),
          .v = v.device_data<T>(),
          .ids = ids.device_data<int32_t>(),
          .S = shape.sequence_length,
          .H = shape.num_heads,
          .G = shape.num_kv_heads,
          .C = shape.head_dim,
          .num_chunks = chunks.num_chunks,
          .chunk_length = chunks.length,
          .chunk_begin = {chunks.begin[0], chunks.begin[1]},
          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)))};
}

// Consecutive positions of one sequence, kTile at most.
struct Positions {
  int64_t sequence, begin, count;
  int64_t row;  // of the first, in a tensor of queries or of keys

  __device__ int64_t end() const { return begin + count; }
};

template <class T>
__device__ inline Positions QueriesFrom(const AttentionOperands<T>& x, int64_t sequence,
                                        int64_t chunk, int64_t first) {
  return {sequence, x.chunk_begin[chunk] + first, min(int64_t{kTile}, x.chunk_length - first),
          (sequence * x.num_chunks + chunk) * x.chunk_length + first};
}

template <class T>
__device__ inline Positions KeysFrom(const AttentionOperands<T>& x, int64_t sequence,
                                     int64_t first) {
  return {sequence, first, min(int64_t{kTile}, x.S - first), sequence * x.S + first};
}

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

// The first key that a query of a tile may see: earlier ones are of earlier documents. The end of
// the queries if there is none. All threads call.
template <class T>
__device__ inline int64_t FirstKey(const AttentionOperands<T>& x, const Positions& queries) {
  if (x.ids == nullptr) return 0;
  const auto smaller = [](auto a, auto b) { return a < b ? a : b; };
  const int32_t* ids = x.ids + queries.sequence * x.S;
  int32_t document = INT_MAX;
  for (int64_t t = queries.begin + threadIdx.x; t < queries.end(); t += blockDim.x) {
    if (ids[t] >= 0) document = smaller(document, ids[t]);
  }
  document = BlockReduce(document, int32_t{INT_MAX}, smaller);
  int64_t first = queries.end();
  for (int64_t t = threadIdx.x; t < first; t += blockDim.x) {
    if (ids[t] >= document) first = t;
  }
  return BlockReduce(first, queries.end(), smaller);
}

// Behind the last position whose query may see a key of a tile. All threads call.
template <class T>
__device__ inline int64_t EndOfQueries(const AttentionOperands<T>& x, const Positions& keys) {
  if (x.ids == nullptr) return x.S;
  const auto larger = [](auto a, auto b) { return a < b ? b : a; };
  const int32_t* ids = x.ids + keys.sequence * x.S;
  int32_t document = -1;
  for (int64_t t = keys.begin + threadIdx.x; t < keys.end(); t += blockDim.x) {
    document = larger(document, ids[t]);
  }
  document = BlockReduce(document, int32_t{-1}, larger);
  int64_t end = 0;
  for (int64_t t = keys.begin + threadIdx.x; t < x.S; t += blockDim.x) {
    if (ids[t] >= 0 && ids[t] <= document) end = t + 1;
  }
  return BlockReduce(end, int64_t{0}, larger);
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
