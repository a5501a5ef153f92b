// Limited by arithmetic: products of 64 x 64 tiles, in FP32 on the plain cores.
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/cuda.h"

namespace moebius::cuda {
namespace {

// What is known of a query while its keys pass by; four threads have one.
struct OnlineSoftmax {
  float max = -INFINITY, sum = 0;
};
constexpr int kThreadsOfQuery = kTileThreads / kTile;

// Makes scores of a tile weights, relative to the largest score so far. `factors` become those of
// what was summed up with weights before. All threads call.
__device__ void Advance(SharedTile& scores, OnlineSoftmax& state, float (&factors)[kTile]) {
  const int row = static_cast<int>(threadIdx.x) / kThreadsOfQuery;
  const int part = static_cast<int>(threadIdx.x) % kThreadsOfQuery;
  float max = state.max, sum = 0;
  for (int n = part; n < kTile; n += kThreadsOfQuery) max = fmaxf(max, scores[row][n]);
  for (int mask = 1; mask < kThreadsOfQuery; mask *= 2) {
    max = fmaxf(max, __shfl_xor_sync(0xFFFFFFFFu, max, mask));
  }
  const float base = max == -INFINITY ? 0.0f : max;  // nothing seen yet
  for (int n = part; n < kTile; n += kThreadsOfQuery) {
    scores[row][n] = expf(scores[row][n] - base);
    sum += scores[row][n];
  }
  for (int mask = 1; mask < kThreadsOfQuery; mask *= 2) {
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, mask);
  }
  const float factor = expf(state.max - base);
  state = {max, state.sum * factor + sum};
  if (part == 0) factors[row] = factor;
  __syncthreads();
}

template <int kColumnTiles>
__device__ void ScaleRows(const float (&factors)[kTile], TileSums (&sums)[kColumnTiles]) {
#pragma unroll
  for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) sums[c][i][j] *= factors[TileRow(i)];
    }
  }
}

// sums[m, n] += the sum over k of weight(m, k) rows(k, n), for all columns of a head.
template <int kColumnTiles, class Weight, class Rows>
__device__ void AddWeighted(const Weight& weight, const Rows& rows,
                            TileSums (&sums)[kColumnTiles]) {
#pragma unroll
  for (int c = 0; c < kColumnTiles; ++c) {
    AddProducts<Contiguous::kTile, Contiguous::kTile>(
        kTile, weight, [&](int n, int64_t k) { return rows(k, c * kTile + n); }, sums[c]);
  }
}

template <int kColumnTiles, class Rows>
__device__ void Write(const TileSums (&sums)[kColumnTiles], const Rows& rows,
                      bool accumulate = false) {
#pragma unroll
  for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        rows.Set(TileRow(i), c * kTile + TileColumn(j), sums[c][i][j], accumulate);
      }
    }
  }
}

// The queries and the head of a block of the grid [B, H, chunks, tiles].
template <class T>
struct QueryBlock {
  __device__ explicit QueryBlock(const AttentionOperands<T>& x) {
    const int64_t tiles = NumTiles(x.chunk_length), i = blockIdx.x / tiles;
    head = i / x.num_chunks % x.H;
    queries =
        QueriesFrom(x, i / x.num_chunks / x.H, i % x.num_chunks, blockIdx.x % tiles * kTile, kTile);
  }
  int64_t head;
  Positions queries;
};

template <class T, int kColumnTiles>
__global__ void AttentionKernel(AttentionOperands<T> x, T* y, float* logsumexp) {
  __shared__ SharedTile weights;
  __shared__ float factors[kTile];
  const QueryBlock<T> block(x);
  const Positions& queries = block.queries;
  OnlineSoftmax state;
  TileSums sums[kColumnTiles] = {};
  for (int64_t first = FirstKey(x, queries); first < queries.end(); first += kTile) {
    const Positions keys = KeysFrom(x, queries.sequence, first, kTile);
    TileSums scores;
    Scores(x, block.head, queries, keys, scores);
    Share(scores, weights);
    Advance(weights, state, factors);
    ScaleRows(factors, sums);
    AddWeighted([&](int m, int64_t k) { return weights[m][k]; },
                HeadOf(x.v, keys, x.G, block.head / (x.H / x.G), x.C), sums);
  }
  const int row = static_cast<int>(threadIdx.x) / kThreadsOfQuery;
  if (threadIdx.x % kThreadsOfQuery == 0) {
    const bool is_padding = state.sum == 0;
    factors[row] = is_padding ? 0.0f : 1 / state.sum;
    if (row < queries.count) {
      logsumexp[(queries.row + row) * x.H + block.head] =
          is_padding ? 0.0f : state.max + logf(state.sum);
    }
  }
  __syncthreads();
  ScaleRows(factors, sums);
  Write(sums, HeadOf(y, queries, x.H, block.head, x.C));
}

// delta[i] = dy . y for the queries of all heads, a warp for each: [B * Q, H].
template <class T>
__global__ void DeltaKernel(Gradient<T> g, int64_t n) {
  const int64_t i = WarpIndex();
  float sum = 0;
  for (int64_t c = LaneIndex(); c < g.x.C && i < n; c += kWarp) {
    sum += Get(g.y[i * g.x.C + c]) * Get(g.dy[i * g.x.C + c]);
  }
  sum = WarpSum(sum);
  if (i < n && LaneIndex() == 0) g.delta[i] = sum;
}

// p and ds of a tile; both are zero where nothing is seen.
template <class T>
__device__ void ScoreGradients(const Gradient<T>& g, int64_t head, const Positions& queries,
                               const Positions& keys, TileSums& p, TileSums& ds) {
  const AttentionOperands<T>& x = g.x;
  Scores(x, head, queries, keys, p);
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) ds[i][j] = 0;
  }
  AddProducts<Contiguous::kDepth, Contiguous::kDepth>(
      x.C, HeadOf(g.dy, queries, x.H, head, x.C), HeadOf(x.v, keys, x.G, head / (x.H / x.G), x.C),
      ds);
  for (int i = 0; i < kEach; ++i) {
    const bool is_row = TileRow(i) < queries.count;
    const int64_t at = (queries.row + TileRow(i)) * x.H + head;
    const float logsumexp = is_row ? g.logsumexp[at] : 0.0f, delta = is_row ? g.delta[at] : 0.0f;
    for (int j = 0; j < kEach; ++j) {
      const bool seen = p[i][j] > -INFINITY;
      p[i][j] = seen ? expf(p[i][j] - logsumexp) : 0.0f;
      ds[i][j] = seen ? p[i][j] * (ds[i][j] - delta) * x.scale : 0.0f;
    }
  }
}

template <class T, int kColumnTiles>
__global__ void QueryGradientKernel(Gradient<T> g) {
  __shared__ SharedTile shared_ds;
  const AttentionOperands<T>& x = g.x;
  const QueryBlock<T> block(x);
  const Positions& queries = block.queries;
  TileSums dq[kColumnTiles] = {};
  for (int64_t first = FirstKey(x, queries); first < queries.end(); first += kTile) {
    const Positions keys = KeysFrom(x, queries.sequence, first, kTile);
    TileSums p, ds;
    ScoreGradients(g, block.head, queries, keys, p, ds);
    Share(ds, shared_ds);
    AddWeighted([&](int m, int64_t k) { return shared_ds[m][k]; },
                HeadOf(x.k, keys, x.G, block.head / (x.H / x.G), x.C), dq);
  }
  Write(dq, HeadOf(g.dq, queries, x.H, block.head, x.C), g.accumulate_q);
}

// A block has keys of one head, and goes over the queries of all heads that share it, in order.
template <class T, int kColumnTiles>
__global__ void KeyGradientKernel(Gradient<T> g) {
  __shared__ SharedTile shared;
  const auto transposed = [&](int m, int64_t k) { return shared[k][m]; };
  const AttentionOperands<T>& x = g.x;
  const int64_t tiles = NumTiles(x.S), i = blockIdx.x / tiles, kv_head = i % x.G;
  const Positions keys = KeysFrom(x, i / x.G, blockIdx.x % tiles * kTile, kTile);
  const int64_t end = EndOfQueries(x, keys), heads = x.H / x.G;
  TileSums dk[kColumnTiles] = {}, dv[kColumnTiles] = {};
  for (int64_t h = 0; h < heads * x.num_chunks; ++h) {
    const int64_t head = kv_head * heads + h / x.num_chunks, chunk = h % x.num_chunks;
    const int64_t begin = x.chunk_begin[chunk], beyond = min(x.chunk_length, end - begin);
    for (int64_t first = max(int64_t{0}, keys.begin - begin); first < beyond; first += kTile) {
      const Positions queries = QueriesFrom(x, keys.sequence, chunk, first, kTile);
      TileSums p, ds;
      ScoreGradients(g, head, queries, keys, p, ds);
      Share(p, shared);
      AddWeighted(transposed, HeadOf(g.dy, queries, x.H, head, x.C), dv);
      Share(ds, shared);
      AddWeighted(transposed, HeadOf(x.q, queries, x.H, head, x.C), dk);
    }
  }
  Write(dk, HeadOf(g.dk, keys, x.G, kv_head, x.C), g.accumulate_k);
  Write(dv, HeadOf(g.dv, keys, x.G, kv_head, x.C), g.accumulate_v);
}

LaunchShape QueryBlocks(const kernels::AttentionShape& shape) {
  const kernels::QueryChunks chunks = shape.query_chunks();
  return BlockForEach(
      shape.num_sequences * shape.num_heads * chunks.num_chunks * NumTiles(chunks.length),
      kTileThreads);
}

LaunchShape KeyBlocks(const kernels::AttentionShape& shape) {
  return BlockForEach(shape.num_sequences * shape.num_kv_heads * NumTiles(shape.sequence_length),
                      kTileThreads);
}

}  // namespace

void Attention(const kernels::AttentionArgs& args, Context& ctx) {
  if (AttendOnHopper(args, ctx)) return;
  WithType(args.q.dtype(), [&]<class T>(T) {
    WithColumnTiles(args.shape.head_dim, [&]<class Tiles>(Tiles) {
      Launch(AttentionKernel<T, Tiles::value>, QueryBlocks(args.shape), ctx,
             OperandsOf<T>(args.shape, args.q, args.k, args.v, args.document_ids),
             args.y.device_data<T>(), args.logsumexp.device_data<float>());
    });
  });
}

void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& ctx) {
  if (AttentionGradientOnHopper(args, ctx)) return;
  const int64_t num_sums = args.logsumexp.size();
  const Tensor delta = ctx.Empty(DType::kF32, {num_sums}, "attention.delta");
  WithType(args.q.dtype(), [&]<class T>(T) {
    const Gradient<T> g = GradientOf<T>(args, delta.device_data<float>());
    Launch(DeltaKernel<T>, WarpForEach(num_sums), ctx, g, num_sums);
    WithColumnTiles(args.shape.head_dim, [&]<class Tiles>(Tiles) {
      Launch(QueryGradientKernel<T, Tiles::value>, QueryBlocks(args.shape), ctx, g);
      Launch(KeyGradientKernel<T, Tiles::value>, KeyBlocks(args.shape), ctx, g);
    });
  });
}

}  // namespace moebius::cuda
