// Limited by latency: a chain of short kernels over a few bytes a pair.
#include <bit>
#include <cmath>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

constexpr int64_t kScanChunk = 4096;  // elements that a block scans
constexpr int64_t kPlanChunk = 1024;  // pairs that a warp places

// The sum of what the threads of the block before this one give, and of all. All threads call.
__device__ int32_t SumBefore(int32_t x, int32_t* total) {
  __shared__ int32_t of_warp[kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = LaneIndex();
  const int num_warps = static_cast<int>(blockDim.x) / kWarp;
  int32_t sum = x;
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t before = __shfl_up_sync(0xFFFFFFFFu, sum, step);
    if (lane >= step) sum += before;
  }
  __syncthreads();  // what an earlier call left has been read
  if (lane == kWarp - 1) of_warp[warp] = sum;
  __syncthreads();
  sum -= x;
  *total = 0;
  for (int w = 0; w < num_warps; ++w) {
    if (w < warp) sum += of_warp[w];
    *total += of_warp[w];
  }
  return sum;
}

// The sum of each chunk of kScanChunk elements.
__global__ void ChunkSumsKernel(const int32_t* x, int64_t n, int32_t* sums) {
  const int64_t begin = blockIdx.x * kScanChunk, end = min(n, begin + kScanChunk);
  int32_t sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += x[i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// x[i] becomes the sum of the elements before it in its chunk, and of sums[chunk] if there are any.
__global__ void ScanKernel(int32_t* x, int64_t n, int64_t chunk, const int32_t* sums) {
  const int64_t begin = blockIdx.x * chunk, end = min(n, begin + chunk);
  int32_t sum = sums == nullptr ? 0 : sums[blockIdx.x];
  for (int64_t tile = begin; tile < end; tile += blockDim.x) {
    const int64_t i = tile + threadIdx.x;
    int32_t of_tile = 0;
    const int32_t before = SumBefore(i < end ? x[i] : 0, &of_tile);
    if (i < end) x[i] = sum + before;
    sum += of_tile;
  }
}

// k for each token that counts; the sums of these where every token does.
__global__ void CountsOfKKernel(const int32_t* ids, int64_t num_tokens, int32_t k, int32_t* y) {
  for (int64_t t = FirstIndex(); t <= num_tokens; t += IndexStride()) {
    if (ids == nullptr) {
      y[t] = static_cast<int32_t>(t * k);
    } else {
      y[t] = t == num_tokens || ids[t] < 0 ? 0 : k;
    }
  }
}

// Larger for a better score, then for a lower expert. A score that is no number is the worst.
__device__ uint64_t Rank(float score, int64_t expert) {
  const float number = std::isnan(score) ? -INFINITY : score + 0.0f;  // -0 is 0
  const auto bits = std::bit_cast<uint32_t>(number);
  const uint32_t ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << 32 | ~static_cast<uint32_t>(expert);
}
__device__ int32_t ExpertOf(uint64_t rank) {
  return static_cast<int32_t>(~static_cast<uint32_t>(rank));
}

// A warp for each token: the best expert, the best of those after it, ...
__global__ void TopKKernel(const float* scores, const float* bias, const int32_t* token_offsets,
                           int64_t num_tokens, int64_t E, int32_t* experts) {
  const int64_t t = WarpIndex();
  if (t >= num_tokens) return;
  uint64_t last = ~uint64_t{0};
  for (int64_t p = token_offsets[t]; p < token_offsets[t + 1]; ++p) {
    uint64_t best = 0;
    for (int64_t e = LaneIndex(); e < E; e += kWarp) {
      const float score = scores[t * E + e] + (bias == nullptr ? 0.0f : bias[e]);
      const uint64_t rank = Rank(score, e);
      if (rank < last) best = max(best, rank);
    }
    last = WarpReduce(best, [](uint64_t a, uint64_t b) { return max(a, b); });
    if (LaneIndex() == 0) experts[p] = ExpertOf(last);
  }
}

// counts [E, chunks], zero before.
__global__ void CountPairsKernel(const int32_t* expert, int64_t P, int64_t chunks,
                                 int32_t* counts) {
  for (int64_t p = FirstIndex(); p < P; p += IndexStride()) {
    atomicAdd(&counts[expert[p] * chunks + p / kPlanChunk], 1);
  }
}

__global__ void ExpertOffsetsKernel(const int32_t* first_rows, int64_t chunks, int64_t P, int64_t E,
                                    int32_t* expert_offsets) {
  for (int64_t e = FirstIndex(); e <= E; e += IndexStride()) {
    expert_offsets[e] = e < E ? first_rows[e * chunks] : static_cast<int32_t>(P);
  }
}

// A warp for each chunk of pairs, in their order. next [E, chunks]: the row of an expert's next
// pair in a chunk.
__global__ void PlacePairsKernel(const int32_t* expert, int64_t P, int64_t chunks, int32_t* next,
                                 int32_t* row) {
  const int64_t chunk = WarpIndex();
  if (chunk >= chunks) return;
  const int64_t end = min(P, (chunk + 1) * kPlanChunk);
  for (int64_t first = chunk * kPlanChunk; first < end; first += kWarp) {
    const int64_t p = first + LaneIndex();
    const int32_t e = p < end ? expert[p] : -1;
    const unsigned alike = __match_any_sync(0xFFFFFFFFu, e);
    const int before = __popc(alike & ((1u << LaneIndex()) - 1));
    if (e >= 0) row[p] = next[e * chunks + chunk] + before;
    __syncwarp();
    if (e >= 0 && before == 0) next[e * chunks + chunk] += __popc(alike);
    __syncwarp();
  }
}

__global__ void RowTokensKernel(const int32_t* token_offsets, const int32_t* row,
                                int64_t num_tokens, int32_t* tokens) {
  for (int64_t t = FirstIndex(); t < num_tokens; t += IndexStride()) {
    for (int64_t p = token_offsets[t]; p < token_offsets[t + 1]; ++p) {
      tokens[row[p]] = static_cast<int32_t>(t);
    }
  }
}

// Each element of x becomes the sum of those before it.
void ExclusiveSums(const Tensor& x, Context& ctx) {
  const int64_t n = x.size(), chunks = (n + kScanChunk - 1) / kScanChunk;
  const Tensor sums = ctx.Empty(DType::kI32, {chunks}, "plan.sums");
  int32_t *const elements = x.device_data<int32_t>(), *const of_chunk = sums.device_data<int32_t>();
  Launch(ChunkSumsKernel, BlockForEach(chunks), ctx, elements, n, of_chunk);
  Launch(ScanKernel, BlockForEach(1), ctx, of_chunk, chunks, chunks, nullptr);
  Launch(ScanKernel, BlockForEach(chunks), ctx, elements, n, kScanChunk, of_chunk);
}

}  // namespace

void OffsetsOfK(const kernels::TopKArgs& args, const Tensor& token_offsets, Context& ctx) {
  Launch(CountsOfKKernel, ForElements(token_offsets.size()), ctx,
         args.document_ids.device_data<int32_t>(), token_offsets.size() - 1, args.k,
         token_offsets.device_data<int32_t>());
  if (args.document_ids.defined()) ExclusiveSums(token_offsets, ctx);
}

void ChooseTopK(const kernels::TopKArgs& args, const Tensor& token_offsets, const Tensor& experts,
                Context& ctx) {
  const auto [T, E] = Dims<2>(args.scores);
  Launch(TopKKernel, WarpForEach(T), ctx, args.scores.device_data<float>(),
         args.bias.device_data<float>(), token_offsets.device_data<int32_t>(), T, E,
         experts.device_data<int32_t>());
}

// Counts by expert and chunk of pairs, in that order, add up to the rows where each of them begins.
void BuildPlan(const RoutingPlan& plan, Context& ctx) {
  const int64_t P = plan.num_pairs(), E = plan.num_experts();
  const int64_t chunks = std::max(int64_t{1}, (P + kPlanChunk - 1) / kPlanChunk);
  const int32_t* const expert = plan.expert.device_data<int32_t>();
  const Tensor next = ctx.Zeros(DType::kI32, {E, chunks}, "plan.next");
  int32_t* const next_row = next.device_data<int32_t>();
  Launch(CountPairsKernel, ForElements(P), ctx, expert, P, chunks, next_row);
  ExclusiveSums(next, ctx);
  Launch(ExpertOffsetsKernel, ForElements(E + 1), ctx, next_row, chunks, P, E,
         plan.expert_offsets.device_data<int32_t>());
  Launch(PlacePairsKernel, WarpForEach(chunks), ctx, expert, P, chunks, next_row,
         plan.row.device_data<int32_t>());
}

void RowTokens(const RoutingPlan& plan, const Tensor& tokens, Context& ctx) {
  Launch(RowTokensKernel, ForElements(plan.num_tokens()), ctx,
         plan.token_offsets.device_data<int32_t>(), plan.row.device_data<int32_t>(),
         plan.num_tokens(), tokens.device_data<int32_t>());
}

}  // namespace moebius::cuda
