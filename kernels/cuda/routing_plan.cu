// Limited by latency: a chain of short kernels over a few bytes a pair.
#include <bit>
#include <cmath>

#include "kernels/cuda/counting_sort.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

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

// Sorted by expert, pairs are rows.
struct Pairs {
  const int32_t* expert;
  int32_t* row;

  __device__ int32_t Key(int64_t p) const { return expert[p]; }
  __device__ void Place(int64_t p, int32_t place) const { row[p] = place; }
};

__global__ void ExpertOffsetsKernel(const int32_t* first_rows, int64_t chunks, int64_t P, int64_t E,
                                    int32_t* expert_offsets) {
  for (int64_t e = FirstIndex(); e <= E; e += IndexStride()) {
    expert_offsets[e] = e < E ? first_rows[e * chunks] : static_cast<int32_t>(P);
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

void BuildPlan(const RoutingPlan& plan, Context& ctx) {
  const int64_t P = plan.num_pairs(), E = plan.num_experts();
  const Pairs pairs = {plan.expert.device_data<int32_t>(), plan.row.device_data<int32_t>()};
  const Tensor first_rows = FirstPlaces(pairs, P, E, ctx);
  Launch(ExpertOffsetsKernel, ForElements(E + 1), ctx, first_rows.device_data<int32_t>(),
         first_rows.shape()[1], P, E, plan.expert_offsets.device_data<int32_t>());
  PlaceItems(pairs, P, first_rows, ctx);
}

void RowTokens(const RoutingPlan& plan, const Tensor& tokens, Context& ctx) {
  Launch(RowTokensKernel, ForElements(plan.num_tokens()), ctx,
         plan.token_offsets.device_data<int32_t>(), plan.row.device_data<int32_t>(),
         plan.num_tokens(), tokens.device_data<int32_t>());
}

}  // namespace moebius::cuda
