#include "kernels/reference/backend.h"

#include "kernels/reference/attention.h"
#include "kernels/reference/linear.h"
#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

// The image of an F64 product is the value itself.
Shape WeightImageShape(const Shape& w, WeightFormat, DType) { return w; }

}  // namespace

const kernels::Backend kBackend = {
    .name = "reference",
    .weight_image_shape = WeightImageShape,
    .pack_weight = ConvertWeight,
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
    .sum = Sum,
    .sum_of_squares = SumOfSquares,
    .columns = Columns,
    .columns_gradient = ColumnsGradient,
    .embedding = Embedding,
    .embedding_gradient = EmbeddingGradient,
    .cross_entropy = CrossEntropy,
    .cross_entropy_statistics = CrossEntropyStatistics,
    .combine_statistics = CombineStatistics,
    .cross_entropy_of_part = CrossEntropyOfPart,
    .offsets_of_k = OffsetsOfK,
    .choose_top_k = [](const kernels::TopKArgs& args, const Tensor&, const Tensor& experts,
                       Context& ctx) { ChooseTopK(args, experts, ctx); },
    .build_plan = BuildPlan,
    .row_tokens = RowTokens,
    .pair_weights = PairWeights,
    .pair_weights_gradient = PairWeightsGradient,
    .permute = Permute,
    .permute_gradient = PermuteGradient,
    .combine = Combine,
    .combine_gradient = CombineGradient,
    .weights_by_row = WeightsByRow,
    .weights_by_row_gradient = WeightsByRowGradient,
    .expert_counts = ExpertCounts,
    .expert_fractions = ExpertFractions,
    .follow_counts = FollowCounts,
    .row_slots = RowSlots,
    .scatter_rows = ScatterRows,
    .gather_rows = GatherRows,
    .balance_loss = BalanceLoss,
    .balance_loss_gradient = BalanceLossGradient,
    .z_loss = ZLoss,
    .z_loss_gradient = ZLossGradient,
    .adamw = AdamW,
    .decide_update = DecideUpdate};

}  // namespace moebius::reference
