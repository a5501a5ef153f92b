// Limited by arithmetic: BF16 products on the tensor cores of Hopper, with F32 sums. One kernel has
// blocks of queries and gives dq, the other blocks of keys and gives dk and dv: seven products, two
// of them computed twice, and no sum that depends on the order in which blocks come. By count:
//
//                      heads of 128                            heads of 64
//                      dq, 128 keys       dk, dv, 64 queries   dq                 dk, dv
//   products           3                  4                    3                  4
//     operations       12.6 M             8.4 M                6.3 M              4.2 M
//     clocks           3072               2048                 1536               1024
//   powers of two      1024 clocks        512 clocks           1024 clocks        512 clocks
//   from L2            64 KB              33 KB                32 KB              17 KB
//   shared memory      107 B a clock      110 B a clock        107 B a clock      110 B a clock
//   operands and ring  64 + 160 KB        64 + 132 KB          32 + 128 KB        32 + 102 KB
//   registers of 232   64 sums, 128       128 sums, 64 scores  32 sums, 128       64 sums, 64
//                      scores             32 weights           scores             scores, 32
//
// Scores are p and ds of a tile; packed, weights take half of their registers.
#include "kernels/cuda/attention_hopper.h"

namespace moebius::cuda {
namespace {

// What each query of a head has, laid out for tiles: [H, B, chunks, length], where chunks are
// filled up to a whole number of tiles.
struct QuerySums {
  float* logsumexp;  // to the base 2; infinite for padding and fill, so that their p are zero
  float* delta;      // dy . y
  int64_t length, of_head;

  __device__ int64_t At(const AttentionOperands<BF16>& x, int64_t head, int64_t sequence,
                        int64_t chunk, int64_t first) const {
    return head * of_head + (sequence * x.num_chunks + chunk) * length + first;
  }
};

// A warp for each place and head.
template <int C>
__global__ void QuerySumsKernel(const Gradient<BF16> g, const QuerySums sums) {
  const AttentionOperands<BF16>& x = g.x;
  const auto warp = static_cast<int>(WarpIndex()), H = static_cast<int>(x.H);
  const auto length = static_cast<int>(sums.length), num_chunks = static_cast<int>(x.num_chunks);
  const int place = warp / H, head = warp % H, chunk = place / length;
  if (place >= sums.of_head) return;
  const Positions query =
      QueriesFrom(x, chunk / num_chunks, chunk % num_chunks, place % length, int64_t{1});
  const bool is_query =
      query.count > 0 && (x.ids == nullptr || x.ids[query.sequence * x.S + query.begin] >= 0);
  const int64_t row = query.row * x.H + head;
  float delta = 0;
  for (int c = 2 * LaneIndex(); c < C && is_query; c += 2 * kWarp) {
    const Pair<BF16> y = GetPair(g.y + row * C + c), dy = GetPair(g.dy + row * C + c);
    delta += Get(y.x) * Get(dy.x) + Get(y.y) * Get(dy.y);
  }
  delta = WarpSum(delta);
  if (LaneIndex() > 0) return;
  sums.logsumexp[head * sums.of_head + place] = is_query ? g.logsumexp[row] * kLog2E : INFINITY;
  sums.delta[head * sums.of_head + place] = delta;
}

template <int n>
__device__ __forceinline__ void ScaleAll(float factor, float (&sums)[n]) {
  ScaleRows({factor, factor}, sums);
}

// dq: rows are queries.
template <int C>
struct QueryGradient {
  static constexpr int kKeys = 128;  // of a tile
  using Queries = HeadRows<kHopperRows, C>;
  using Keys = HeadRows<kKeys, C>;
  using Stages = Ring<C == 64 ? 8 : 5, Keys::kBytes, C == 64 ? 2 : 1>;  // of k, of v, ...
  static constexpr int kSharedBytes = 2 * Queries::kBytes + Stages::kBytes + kAlignmentBytes;
  static_assert(kSharedBytes <= kMaxSharedBytes);
};

// Of the copying warpgroup: q and dy come with the first keys.
template <int C>
__device__ __forceinline__ void CopyForQueries(
    const Gradient<BF16>& g, const QueryTile& block, unsigned char* q,
    RingWriter<typename QueryGradient<C>::Stages> writer) {
  using Queries = typename QueryGradient<C>::Queries;
  const AttentionOperands<BF16>& x = g.x;
  const int num_tiles = block.num_tiles;
  if (num_tiles > 0) {
    Queries::Copy(q, x.q, x.H, block.head, block.queries);
    Queries::Copy(q + Queries::kBytes, g.dy, x.H, block.head, block.queries);
  }
#pragma unroll 1
  for (int tile = 0; tile < num_tiles; ++tile) {
    const Positions keys = block.Keys(x, tile, QueryGradient<C>::kKeys);
    const auto copy = [&](const BF16* matrix) {
      writer.Next([&](unsigned char* stage) {
        QueryGradient<C>::Keys::Copy(stage, matrix, x.G, block.kv_head, keys);
      });
    };
    copy(x.k);
    copy(x.v);
  }
  writer.Finish();
}

// Of a multiplying warpgroup.
template <int C>
__device__ __forceinline__ void AddQueryGradient(
    const AttentionOperands<BF16>& x, const QuerySums& of_queries, const QueryTile& block,
    const unsigned char* q, RingReader<typename QueryGradient<C>::Stages> reader,
    float (&dq)[C / 2]) {
  constexpr int kKeys = QueryGradient<C>::kKeys;
  const unsigned char* const dy = q + QueryGradient<C>::Queries::kBytes;
  const Visibility<Rows::kQueries> visibility(x, block.queries);
  const int64_t at =
      of_queries.At(x, block.head, block.queries.sequence, block.chunk, block.first) +
      SumsPlace::Row(0);
  const float logsumexp[2] = {of_queries.logsumexp[at], of_queries.logsumexp[at + 8]};
  const float delta[2] = {of_queries.delta[at], of_queries.delta[at + 8]};
  const float scale = x.scale * kLog2E;
  float p[kKeys / 2], ds[kKeys / 2];
  const int num_tiles = block.num_tiles;
  Weights<kKeys> weights;
#pragma unroll 1
  for (int tile = 0; tile < num_tiles; ++tile) {
    const unsigned char *const k = reader.Next(), *const v = reader.Next();
    MultiplyRows<C, kHopperRows, kKeys>(q, k, p);
    MultiplyRows<C, kHopperRows, kKeys>(dy, v, ds);
    WgmmaWait<1>();
    Settle(p);
    visibility.Mask(block.Keys(x, tile, kKeys), p);
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) p[i] = Exp2(p[i] * scale - logsumexp[SumsPlace::Half(i)]);
    WgmmaWait<0>();
    Settle(ds);
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) ds[i] = p[i] * (ds[i] - delta[SumsPlace::Half(i)]);
    Pack<kKeys>(ds, weights);
    AddWeighted<C, kKeys>(weights, k, dq);
    WgmmaWait<0>();
    Settle(dq);
    reader.Release();
    reader.Release();
  }
}

template <int C>
__global__ void __launch_bounds__(kHopperThreads, 1)
    QueryGradientKernel(const Gradient<BF16> g, const QuerySums of_queries) {
  using Queries = typename QueryGradient<C>::Queries;
  __shared__ typename QueryGradient<C>::Stages ring;
  __shared__ QueryTile block;
  unsigned char* const q = SharedAtoms();
  unsigned char* const stages = q + 2 * Queries::kBytes;
  const int warpgroup = WarpgroupIndex();
  const AttentionOperands<BF16>& x = g.x;
  const QueryTile own = QueryTile::Of<QueryGradient<C>::kKeys>(x);
  if (threadIdx.x == 0) block = own, ring.Open();
  __syncthreads();
  if (warpgroup == kConsumers) {
    DropRegisters<kCopyRegisters>();
    CopyForQueries<C>(g, block, q, {ring, stages});
  } else {
    RaiseRegisters<kMultiplyRegisters>();
    float dq[C / 2] = {};
    AddQueryGradient<C>(x, of_queries, block, q + warpgroup * kChunkBytes, {ring, stages}, dq);
    ScaleAll(x.scale, dq);
    const Positions queries = block.queries;
    const StoreY<BF16> store = {g.dq + queries.row * x.H * C, x.H * C, g.accumulate_q};
    store(SumsPlace(queries.count, C, x.H * C), 0, block.head * C, dq);
  }
}

// dk and dv: rows are keys. A stage has 64 queries, what comes into their y, and their sums.
template <int C>
struct KeyGradient {
  static constexpr int kQueries = 64;  // of a tile
  using Keys = HeadRows<kHopperRows, C>;
  using Queries = HeadRows<kQueries, C>;
  static constexpr int kSums = 2 * Queries::kBytes;  // where they begin in a stage
  using Stages = Ring<C == 64 ? 6 : 4, kSums + kAtomBytes>;
  static constexpr int kSharedBytes = 2 * Keys::kBytes + Stages::kBytes + kAlignmentBytes;
  static_assert(kSharedBytes <= kMaxSharedBytes);
};

// The keys and the head of a block of a grid [tiles, B, G], early ones, which most see, first; and
// the tiles of the queries that may see them: of all heads that share theirs, in order.
struct KeyTile {
  static constexpr int kQueries = 64;
  static __device__ KeyTile Of(const AttentionOperands<BF16>& x);  // all threads call

  struct Tile {
    int head, chunk, first;
  };
  __device__ Tile At(int index) const {
    const int of_head = tiles[0] + tiles[1], tile = index % of_head;
    const int head = kv_head * heads + index / of_head;
    return tile < tiles[0] ? Tile{head, 0, first[0] + tile * kQueries}
                           : Tile{head, 1, first[1] + (tile - tiles[0]) * kQueries};
  }
  __device__ Positions Queries(const AttentionOperands<BF16>& x, const Tile& tile) const {
    return QueriesFrom(x, keys.sequence, tile.chunk, tile.first, int64_t{kQueries});
  }

  int kv_head, heads;
  Positions keys;
  int first[2], tiles[2];  // of the chunks
  int num_tiles;
};

__device__ KeyTile KeyTile::Of(const AttentionOperands<BF16>& x) {
  const auto G = static_cast<int>(x.G);
  const int kv_heads = static_cast<int>(gridDim.x) / static_cast<int>(HopperTiles(x.S));
  const int i = static_cast<int>(blockIdx.x) % kv_heads;
  const int first_key = static_cast<int>(blockIdx.x) / kv_heads * kHopperRows;
  KeyTile block;
  block.kv_head = i % G, block.heads = static_cast<int>(x.H / x.G);
  block.keys = KeysFrom(x, i / G, first_key, kHopperRows);
  const auto end = static_cast<int>(EndOfQueries(x, block.keys));
#pragma unroll
  for (int chunk = 0; chunk < 2; ++chunk) {
    const auto begin = static_cast<int>(x.chunk_begin[chunk]);
    const int length = chunk < x.num_chunks ? static_cast<int>(x.chunk_length) : 0;
    const int first = max(0, first_key - begin) / kQueries * kQueries;
    const int count = min(length, end - begin) - first;
    block.first[chunk] = first;
    block.tiles[chunk] = count > 0 ? (count + kQueries - 1) / kQueries : 0;
  }
  block.num_tiles = block.heads * (block.tiles[0] + block.tiles[1]);
  return block;
}

// Of the copying warpgroup: k and v come with the first queries.
template <int C>
__device__ __forceinline__ void CopyForKeys(const Gradient<BF16>& g, const QuerySums& of_queries,
                                            const KeyTile& block, unsigned char* k,
                                            RingWriter<typename KeyGradient<C>::Stages> writer) {
  using Keys = typename KeyGradient<C>::Keys;
  using Queries = typename KeyGradient<C>::Queries;
  constexpr int kQueries = KeyGradient<C>::kQueries, kSumsBytes = kQueries * 4;
  const AttentionOperands<BF16>& x = g.x;
  const int num_tiles = block.num_tiles;
  if (num_tiles > 0) {
    Keys::Copy(k, x.k, x.G, block.kv_head, block.keys);
    Keys::Copy(k + Keys::kBytes, x.v, x.G, block.kv_head, block.keys);
  }
#pragma unroll 1
  for (int i = 0; i < num_tiles; ++i) {
    const KeyTile::Tile tile = block.At(i);
    const Positions queries = block.Queries(x, tile);
    writer.Next([&](unsigned char* stage) {
      Queries::Copy(stage, x.q, x.H, tile.head, queries);
      Queries::Copy(stage + Queries::kBytes, g.dy, x.H, tile.head, queries);
      const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
      constexpr int kCellsOfSums = kSumsBytes / kCellBytes;
      if (thread >= 2 * kCellsOfSums) return;
      const float* const sums =
          (thread < kCellsOfSums ? of_queries.logsumexp : of_queries.delta) +
          of_queries.At(x, tile.head, block.keys.sequence, tile.chunk, tile.first);
      CopyAsync(stage + KeyGradient<C>::kSums + thread * kCellBytes,
                sums + thread % kCellsOfSums * (kCellBytes / 4), true);
    });
  }
  writer.Finish();
}

// Of a multiplying warpgroup.
template <int C>
__device__ __forceinline__ void AddKeyGradients(const AttentionOperands<BF16>& x,
                                                const KeyTile& block, const unsigned char* k,
                                                RingReader<typename KeyGradient<C>::Stages> reader,
                                                float (&dk)[C / 2], float (&dv)[C / 2]) {
  constexpr int kQueries = KeyGradient<C>::kQueries, n = kQueries / 2;
  const unsigned char* const v = k + KeyGradient<C>::Keys::kBytes;
  const Visibility<Rows::kKeys> visibility(x, block.keys);
  const float scale = x.scale * kLog2E;
  const int num_tiles = block.num_tiles;
  float p[n], ds[n];
  Weights<kQueries> p_weights, ds_weights;
#pragma unroll 1
  for (int i = 0; i < num_tiles; ++i) {
    const unsigned char* const q = reader.Next();
    const unsigned char* const dy = q + KeyGradient<C>::Queries::kBytes;
    const auto* const logsumexp = reinterpret_cast<const float*>(q + KeyGradient<C>::kSums);
    const float* const delta = logsumexp + kQueries;
    MultiplyRows<C, kHopperRows, kQueries>(k, q, p);
    MultiplyRows<C, kHopperRows, kQueries>(v, dy, ds);
    WgmmaWait<1>();
    Settle(p);
    visibility.Mask(block.Queries(x, block.At(i)), p);
#pragma unroll
    for (int j = 0; j < n; ++j) p[j] = Exp2(p[j] * scale - logsumexp[AccumulatorColumn(j)]);
    WgmmaWait<0>();
    Settle(ds);
#pragma unroll
    for (int j = 0; j < n; ++j) ds[j] = p[j] * (ds[j] - delta[AccumulatorColumn(j)]);
    Pack<kQueries>(p, p_weights);
    Pack<kQueries>(ds, ds_weights);
    AddWeighted<C, kQueries>(p_weights, dy, dv);
    AddWeighted<C, kQueries>(ds_weights, q, dk);
    WgmmaWait<0>();
    Settle(dv);
    Settle(dk);
    reader.Release();
  }
}

template <int C>
__global__ void __launch_bounds__(kHopperThreads, 1)
    KeyGradientKernel(const Gradient<BF16> g, const QuerySums of_queries) {
  using Keys = typename KeyGradient<C>::Keys;
  __shared__ typename KeyGradient<C>::Stages ring;
  __shared__ KeyTile block;
  unsigned char* const k = SharedAtoms();
  unsigned char* const stages = k + 2 * Keys::kBytes;
  const int warpgroup = WarpgroupIndex();
  const AttentionOperands<BF16>& x = g.x;
  const KeyTile own = KeyTile::Of(x);
  if (threadIdx.x == 0) block = own, ring.Open();
  __syncthreads();
  if (warpgroup == kConsumers) {
    DropRegisters<kCopyRegisters>();
    CopyForKeys<C>(g, of_queries, block, k, {ring, stages});
  } else {
    RaiseRegisters<kMultiplyRegisters>();
    float dk[C / 2] = {}, dv[C / 2] = {};
    AddKeyGradients<C>(x, block, k + warpgroup * kChunkBytes, {ring, stages}, dk, dv);
    ScaleAll(x.scale, dk);
    const Positions keys = block.keys;
    const SumsPlace place(keys.count, C, x.G * C);
    const int64_t first = keys.row * x.G * C;
    const StoreY<BF16> store_k = {g.dk + first, x.G * C, g.accumulate_k},
                       store_v = {g.dv + first, x.G * C, g.accumulate_v};
    store_k(place, 0, block.kv_head * C, dk);
    store_v(place, 0, block.kv_head * C, dv);
  }
}

LaunchShape KeyTiles(const kernels::AttentionShape& shape, int shared_bytes) {
  return {HopperTiles(shape.sequence_length) * shape.num_sequences * shape.num_kv_heads,
          kHopperThreads, shared_bytes};
}

template <int C>
void Start(const kernels::AttentionGradientArgs& args, Context& ctx) {
  const kernels::QueryChunks chunks = args.shape.query_chunks();
  const int64_t length = HopperTiles(chunks.length) * kHopperRows;
  const int64_t of_head = args.shape.num_sequences * chunks.num_chunks * length;
  const int64_t num_sums = args.shape.num_heads * of_head;
  CHECK_LT(num_sums, (int64_t{1} << 31) - 1024) << "queries of all heads";
  const Tensor sums = ctx.Empty(DType::kF32, {2, num_sums}, "attention.delta");
  float* const logsumexp = sums.device_data<float>();
  const QuerySums of_queries = {logsumexp, logsumexp + num_sums, length, of_head};
  const Gradient<BF16> g = GradientOf<BF16>(args, nullptr);
  Launch(QuerySumsKernel<C>, WarpForEach(num_sums), ctx, g, of_queries);
  Launch(QueryGradientKernel<C>, QueryTiles(args.shape, QueryGradient<C>::kSharedBytes), ctx, g,
         of_queries);
  Launch(KeyGradientKernel<C>, KeyTiles(args.shape, KeyGradient<C>::kSharedBytes), ctx, g,
         of_queries);
}

}  // namespace

bool AttentionGradientOnHopper(const kernels::AttentionGradientArgs& args, Context& ctx) {
  if (!SuitHopper(args.shape, {args.q, args.k, args.v, args.y, args.dy, args.dq, args.dk, args.dv},
                  ctx)) {
    return false;
  }
  args.shape.head_dim == 64 ? Start<64>(args, ctx) : Start<128>(args, ctx);
  return true;
}

}  // namespace moebius::cuda
