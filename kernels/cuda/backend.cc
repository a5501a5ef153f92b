#include "kernels/cuda/cuda.h"

#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

namespace moebius::cuda {

const kernels::Backend kBackend = {.name = "cuda",
                                   .add = Add,
                                   .cast = Cast,
                                   .scale = Scale,
                                   .sum_of_squares = SumOfSquares,
                                   .offsets_of_k = OffsetsOfK,
                                   .choose_top_k = ChooseTopK,
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
                                   .weigh_rows_gradient = WeighRowsGradient,
                                   .expert_counts = ExpertCounts,
                                   .expert_fractions = ExpertFractions,
                                   .balance_loss = BalanceLoss,
                                   .balance_loss_gradient = BalanceLossGradient,
                                   .z_loss = ZLoss,
                                   .z_loss_gradient = ZLossGradient};

}  // namespace moebius::cuda
