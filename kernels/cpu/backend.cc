#include "kernels/cpu/backend.h"

#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/weight_images.h"
#include "kernels/reference/reference.h"

namespace moebius::cpu {
namespace {

void Pack(const Tensor& w, WeightFormat format, const Tensor& image, Context& ctx) {
  if (format == WeightFormat::kPlain) return reference::ConvertWeight(w, format, image, ctx);
  PackWeight(w, {format == WeightFormat::kPackedTransposed, image}, ctx, Simd());
}

void Linear(const kernels::LinearArgs& args, Context& ctx) { Multiply(args, ctx, Simd()); }

void LinearInputGradient(const kernels::LinearInputGradientArgs& args, Context& ctx) {
  Multiply({.x = args.dy,
            .w = args.w,
            .offsets = args.offsets,
            .y = args.dx,
            .accumulate = args.accumulate,
            .rows = args.rows},
           ctx, Simd());
}

void LinearSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, Context& ctx) {
  LinearSwiGluGradient(args, ctx, Simd());
}

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& ctx) {
  LinearWeightGradient(args, ctx, Simd());
}

void LinearSum(const kernels::LinearSumArgs& args, Context& ctx) { MultiplySum(args, ctx, Simd()); }

void AdamW(const kernels::AdamWArgs& args, Context& ctx) { AdamW(args, ctx, Simd()); }

void Attention(const kernels::AttentionArgs& args, Context& ctx) { Attention(args, ctx, Simd()); }

void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& ctx) {
  AttentionGradient(args, ctx, Simd());
}

}  // namespace

Shape PackedShape(const Shape& w, WeightFormat format, DType compute) {
  const int64_t e = w.rank() == 3 ? w[0] : 1, N = w[w.rank() - 2], K = w[w.rank() - 1];
  const bool transposed = format == WeightFormat::kPackedTransposed;
  return {e, PackedElements({.outputs = transposed ? K : N, .inputs = transposed ? N : K}, compute,
                            Simd())};
}

const kernels::Backend kBackend = {
    .name = "cpu",
    .pack_weight = Pack,
    .linear = Linear,
    .linear_input_gradient = LinearInputGradient,
    .linear_swiglu_gradient = LinearSwiGluGradient,
    .linear_weight_gradient = LinearWeightGradient,
    .linear_sum = LinearSum,
    .attention = Attention,
    .attention_gradient = AttentionGradient,
    .rms_norm = RmsNorm,
    .row_products = RowProducts,
    .rms_norm_input_gradient = RmsNormInputGradient,
    .rms_norm_weight_gradient = RmsNormWeightGradient,
    .rotary = Rotary,
    .swiglu = SwiGlu,
    .swiglu_gradient = SwiGluGradient,
    .softmax = Softmax,
    .softmax_gradient = SoftmaxGradient,
    .sigmoid = Sigmoid,
    .sigmoid_gradient = SigmoidGradient,
    .add = Add,
    .cast = Cast,
    .scale = Scale,
    .sum = reference::Sum,
    .sum_of_squares = SumOfSquares,
    .columns = Columns,
    .columns_gradient = ColumnsGradient,
    .embedding = Embedding,
    .embedding_gradient = EmbeddingGradient,
    .cross_entropy = CrossEntropy,
    .cross_entropy_statistics = CrossEntropyStatistics,
    .combine_statistics = reference::CombineStatistics,
    .cross_entropy_of_part = CrossEntropyOfPart,
    .offsets_of_k = reference::OffsetsOfK,
    .choose_top_k = [](const kernels::TopKArgs& args, const Tensor&, const Tensor& experts,
                       Context& ctx) { ChooseTopK(args, experts, ctx); },
    .build_plan = reference::BuildPlan,
    .row_tokens = reference::RowTokens,
    .pair_weights = PairWeights,
    .pair_weights_gradient = PairWeightsGradient,
    .permute = Permute,
    .permute_gradient = PermuteGradient,
    .combine = Combine,
    .combine_gradient = CombineGradient,
    .weights_by_row = reference::WeightsByRow,
    .weights_by_row_gradient = reference::WeightsByRowGradient,
    .expert_counts = reference::ExpertCounts,
    .expert_fractions = reference::ExpertFractions,
    .follow_counts = reference::FollowCounts,
    .row_slots = reference::RowSlots,
    .scatter_rows = ScatterRows,
    .gather_rows = GatherRows,
    .balance_loss = BalanceLoss,
    .balance_loss_gradient = BalanceLossGradient,
    .z_loss = ZLoss,
    .z_loss_gradient = ZLossGradient,
    .adamw = AdamW,
    .decide_update = reference::DecideUpdate};

}  // namespace moebius::cpu
