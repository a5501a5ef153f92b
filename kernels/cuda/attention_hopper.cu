// Limited by arithmetic: BF16 products on the tensor cores of Hopper, with F32 sums. A block has
// 128 queries of a head in two warpgroups; the third copies keys. By count, for a tile of 128 keys:
//
//                      heads of 128              heads of 64
//   two products       8.4 M, 2048 clocks        4.2 M, 1024 clocks    (4096 in a clock of an SM)
//   powers of two      16 K, 1024 clocks         16 K, 1024 clocks     (16 in a clock)
//   from L2            64 KB, 32 B a clock       32 KB, 32 B a clock
//   shared memory      64 KB in, 160 KB out      32 KB in, 80 KB out
//                      112 B a clock of 128      112 B a clock
//   q and ring         32 KB + 192 KB            16 KB + 128 KB
//   registers of 232   64 sums, 64 scores,       32 sums, 64 scores,
//                      32 weights                32 weights
//
// Products of a warpgroup run while it, or the other one, computes weights.
#include "kernels/cuda/attention_hopper.h"

namespace moebius::cuda {
namespace {

template <int C>
struct Forward {
  static constexpr int kKeys = 128;  // of a tile
  using Queries = HeadRows<kHopperRows, C>;
  using Keys = HeadRows<kKeys, C>;
  using Stages = Ring<C == 64 ? 8 : 6, Keys::kBytes>;  // of k, of v, ...
  static constexpr int kSharedBytes = Queries::kBytes + Stages::kBytes + kAlignmentBytes;
  static_assert(kSharedBytes <= kMaxSharedBytes);
};

// What is known of a thread's two queries while keys pass by.
struct OnlineSoftmax {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};  // of the thread's own columns
};

// Of the four threads that share a row.
template <class Combine>
__device__ __forceinline__ float OfRow(float x, const Combine& combine) {
  x = combine(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
  return combine(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

// Makes scores weights, 2^(scale * (score - the largest so far)). `factors` become those of what
// was summed up with weights before.
template <int n>
__device__ __forceinline__ void Advance(float scale, float (&scores)[n], OnlineSoftmax& state,
                                        float (&factors)[2]) {
  float max[4] = {state.max[0], state.max[0], state.max[1], state.max[1]}, sum[4] = {};
#pragma unroll
  for (int i = 0; i < n; ++i) max[i % 4] = fmaxf(max[i % 4], scores[i]);
  float base[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float largest = OfRow(fmaxf(max[2 * half], max[2 * half + 1]),
                                [](float a, float b) { return fmaxf(a, b); });
    base[half] = largest == -INFINITY ? 0.0f : largest * scale;  // nothing seen yet
    factors[half] = Exp2(state.max[half] * scale - base[half]);
    state.max[half] = largest;
  }
#pragma unroll
  for (int i = 0; i < n; ++i) {
    scores[i] = Exp2(scores[i] * scale - base[SumsPlace::Half(i)]);
    sum[i % 4] += scores[i];
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    state.sum[half] = state.sum[half] * factors[half] + (sum[2 * half] + sum[2 * half + 1]);
  }
}

// Of the copying warpgroup: the queries come with the first keys.
template <int C>
__device__ __forceinline__ void CopyTiles(const AttentionOperands<BF16>& x, const QueryTile& block,
                                          unsigned char* q,
                                          RingWriter<typename Forward<C>::Stages> writer) {
  const int num_tiles = block.num_tiles;
  if (num_tiles > 0) Forward<C>::Queries::Copy(q, x.q, x.H, block.head, block.queries);
#pragma unroll 1
  for (int tile = 0; tile < num_tiles; ++tile) {
    const Positions keys = block.Keys(x, tile, Forward<C>::kKeys);
    const auto copy = [&](const BF16* matrix) {
      writer.Next([&](unsigned char* stage) {
        Forward<C>::Keys::Copy(stage, matrix, x.G, block.kv_head, keys);
      });
    };
    copy(x.k);
    copy(x.v);
  }
  writer.Finish();
}

// Of a multiplying warpgroup: scores of a tile are computed beside the weighted sum of the tile
// before, which goes on while they become weights.
template <int C>
__device__ __forceinline__ void Attend(const AttentionOperands<BF16>& x, const QueryTile& block,
                                       const unsigned char* q,
                                       RingReader<typename Forward<C>::Stages> reader,
                                       OnlineSoftmax& state, float (&sums)[C / 2]) {
  constexpr int kKeys = Forward<C>::kKeys;
  const Visibility<Rows::kQueries> visibility(x, block.queries);
  float scores[kKeys / 2], factors[2];
  Weights<kKeys> weights;
  const auto weigh = [&](int tile) {
    visibility.Mask(block.Keys(x, tile, kKeys), scores);
    Advance(x.scale * kLog2E, scores, state, factors);
  };
  const int num_tiles = block.num_tiles;
  if (num_tiles == 0) return;
  MultiplyRows<C, kHopperRows, kKeys>(q, reader.Next(), scores);
  WgmmaWait<0>();
  Settle(scores);
  reader.Release();
  weigh(0);
  Pack<kKeys>(scores, weights);
#pragma unroll 1
  for (int tile = 1; tile < num_tiles; ++tile) {
    const unsigned char *const v = reader.Next(), *const k = reader.Next();
    MultiplyRows<C, kHopperRows, kKeys>(q, k, scores);
    AddWeighted<C, kKeys>(weights, v, sums);
    WgmmaWait<1>();
    Settle(scores);
    weigh(tile);
    WgmmaWait<0>();
    Settle(sums);
    reader.Release();  // k of this tile, or v of the one before
    reader.Release();
    ScaleRows(factors, sums);
    Pack<kKeys>(scores, weights);
  }
  AddWeighted<C, kKeys>(weights, reader.Next(), sums);
  WgmmaWait<0>();
  Settle(sums);
}

template <int C>
__device__ __forceinline__ void Store(const AttentionOperands<BF16>& x, const QueryTile& block,
                                      const OnlineSoftmax& state, float (&sums)[C / 2], BF16* y,
                                      float* logsumexp) {
  const Positions& queries = block.queries;
  float factors[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = OfRow(state.sum[half], [](float a, float b) { return a + b; });
    const bool is_padding = sum == 0;
    factors[half] = is_padding ? 0.0f : 1 / sum;
    const int row = SumsPlace::Row(half);
    if (LaneIndex() % 4 == 0 && row < queries.count) {
      logsumexp[(queries.row + row) * x.H + block.head] =
          is_padding ? 0.0f : state.max[half] * x.scale + logf(sum);
    }
  }
  ScaleRows(factors, sums);
  const StoreY<BF16> store = {y + queries.row * x.H * C, x.H * C, false};
  store(SumsPlace(queries.count, C, x.H * C), 0, block.head * C, sums);
}

template <int C>
__global__ void __launch_bounds__(kHopperThreads, 1)
    AttentionKernel(const AttentionOperands<BF16> x, BF16* y, float* logsumexp) {
  using Stages = typename Forward<C>::Stages;
  __shared__ Stages ring;
  __shared__ QueryTile block;
  unsigned char* const q = SharedAtoms();
  unsigned char* const stages = q + Forward<C>::Queries::kBytes;
  const int warpgroup = WarpgroupIndex();
  const QueryTile own = QueryTile::Of<Forward<C>::kKeys>(x);
  if (threadIdx.x == 0) block = own, ring.Open();
  __syncthreads();
  if (warpgroup == kConsumers) {
    DropRegisters<kCopyRegisters>();
    CopyTiles<C>(x, block, q, {ring, stages});
  } else {
    RaiseRegisters<kMultiplyRegisters>();
    OnlineSoftmax state;
    float sums[C / 2] = {};
    Attend<C>(x, block, q + warpgroup * kChunkBytes, {ring, stages}, state, sums);
    Store<C>(x, block, state, sums, y, logsumexp);
  }
}

}  // namespace

bool AttendOnHopper(const kernels::AttentionArgs& args, Context& ctx) {
  if (!SuitHopper(args.shape, {args.q, args.k, args.v, args.y}, ctx)) return false;
  const auto start = [&]<int C>() {
    Launch(AttentionKernel<C>, QueryTiles(args.shape, Forward<C>::kSharedBytes), ctx,
           OperandsOf<BF16>(args.shape, args.q, args.k, args.v, args.document_ids),
           args.y.device_data<BF16>(), args.logsumexp.device_data<float>());
  };
  args.shape.head_dim == 64 ? start.template operator()<64>() : start.template operator()<128>();
  return true;
}

}  // namespace moebius::cuda
