// Limited by latency: a search in the tokens of an expert's rows for each count.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// How many of the ascending tokens [begin, end) are below `bound`.
__device__ int64_t CountBelow(const int32_t* begin, const int32_t* end, int64_t bound) {
  int64_t low = 0, high = end - begin;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (begin[middle] < bound) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// tokens: of rows, ascending within an expert.
__global__ void CountsKernel(const int32_t* expert_offsets, const int32_t* tokens, int64_t groups,
                             int64_t E, int64_t tokens_per_group, double* counts, bool accumulate) {
  for (int64_t i = FirstIndex(); i < groups * E; i += IndexStride()) {
    const int64_t g = i / E, e = i % E;
    const int32_t *begin = tokens + expert_offsets[e], *end = tokens + expert_offsets[e + 1];
    const int64_t count = CountBelow(begin, end, (g + 1) * tokens_per_group) -
                          CountBelow(begin, end, g * tokens_per_group);
    counts[i] = (accumulate ? counts[i] : 0) + static_cast<double>(count);
  }
}

// A warp for each group.
__global__ void FractionsKernel(const double* counts, int64_t groups, int64_t E, float* fractions) {
  const int64_t g = WarpIndex();
  if (g >= groups) return;
  double sum = 0;
  for (int64_t e = LaneIndex(); e < E; e += kWarp) sum += counts[g * E + e];
  sum = WarpSum(sum);
  for (int64_t e = LaneIndex(); e < E; e += kWarp) {
    const double fraction = sum > 0 ? counts[g * E + e] / sum : 1.0 / static_cast<double>(E);
    fractions[g * E + e] = static_cast<float>(fraction);
  }
}

// By one block; bias may be null.
__global__ void FollowKernel(const double* counts, const double* state, int64_t E, double rate,
                             double* last_counts, float* bias) {
  if (state[StepState::kUpdates] == 0) return;  // all threads alike
  double sum = 0;
  for (int64_t e = threadIdx.x; e < E; e += blockDim.x) sum += counts[e];
  const double mean = BlockSum(sum) / static_cast<double>(E);
  for (int64_t e = threadIdx.x; e < E; e += blockDim.x) {
    last_counts[e] = counts[e];
    const double error = mean - counts[e];
    if (bias != nullptr) bias[e] += static_cast<float>(rate * ((error > 0) - (error < 0)));
  }
}

}  // namespace

void ExpertCounts(const kernels::ExpertCountsArgs& args, Context& ctx) {
  const auto [groups, E] = Dims<2>(args.counts);
  const Tensor tokens = ctx.Empty(DType::kI32, {args.plan.num_pairs()}, "expert_counts.tokens");
  RowTokens(args.plan, tokens, ctx);
  Launch(CountsKernel, ForElements(groups * E), ctx,
         args.plan.expert_offsets.device_data<int32_t>(), tokens.device_data<int32_t>(), groups, E,
         args.tokens_per_group, args.counts.device_data<double>(), args.accumulate);
}

void ExpertFractions(const Tensor& counts, const Tensor& fractions, Context& ctx) {
  const auto [groups, E] = Dims<2>(counts);
  Launch(FractionsKernel, WarpForEach(groups), ctx, counts.device_data<double>(), groups, E,
         fractions.device_data<float>());
}

void FollowCounts(const kernels::FollowCountsArgs& args, Context& ctx) {
  Launch(FollowKernel, BlockForEach(1), ctx, args.counts.device_data<double>(),
         args.state.device_data<double>(), args.counts.size(), args.rate,
         args.last_counts.device_data<double>(), args.bias.device_data<float>());
}

}  // namespace moebius::cuda
