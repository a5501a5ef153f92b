// One implementation of every kernel: reference/ in F64, cpu/ and cuda/ in F32 and BF16. The
// entries in kernels/ check their arguments and choose one; contracts are those of their headers,
// and no problem is empty unless an entry lets it through.
#pragma once

#include "kernels/activations.h"
#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/columns.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/expert_counts.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/router_losses.h"
#include "kernels/routing.h"
#include "kernels/routing_plan.h"
#include "kernels/row_slots.h"

namespace moebius::kernels {

struct Backend {
  const char* name;

  // linear.h, weight_images.h
  void (*pack_weight)(const Tensor& w, WeightFormat format, const Tensor& image, Context&);
  void (*linear)(const LinearArgs&, Context&);
  void (*linear_input_gradient)(const LinearInputGradientArgs&, Context&);
  void (*linear_swiglu_gradient)(const LinearSwiGluGradientArgs&, Context&);
  void (*linear_weight_gradient)(const LinearWeightGradientArgs&, Context&);
  void (*linear_sum)(const LinearSumArgs&, Context&);

  // attention.h
  void (*attention)(const AttentionArgs&, Context&);
  void (*attention_gradient)(const AttentionGradientArgs&, Context&);

  // rms_norm.h, rotary.h
  void (*rms_norm)(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context&,
                   const WholeRows& whole);
  void (*row_products)(const RowProductsArgs&, Context&);
  void (*rms_norm_input_gradient)(const RmsNormInputGradientArgs&, Context&);
  void (*rms_norm_weight_gradient)(const RmsNormWeightGradientArgs&, Context&);
  void (*rotary)(const RotaryArgs&, Context&);

  // activations.h
  void (*swiglu)(const Tensor& gate, const Tensor& up, const Tensor& h, Context&);
  void (*swiglu_gradient)(const SwiGluGradientArgs&, Context&);
  void (*softmax)(const Tensor& z, const Tensor& p, Context&);
  void (*softmax_gradient)(const ScoreGradientArgs&, Context&);
  void (*sigmoid)(const Tensor& z, const Tensor& s, Context&);
  void (*sigmoid_gradient)(const ScoreGradientArgs&, Context&);

  // elementwise.h, columns.h, embedding.h
  void (*add)(const Tensor& a, const Tensor& b, const Tensor& y, Context&);
  void (*cast)(const CastArgs&, Context&);
  void (*scale)(const Tensor& x, double factor, Context&);
  void (*sum)(const SumArgs&, Context&);
  void (*sum_of_squares)(const Tensor& x, const Tensor& sum, Context&);
  void (*columns)(const Tensor& x, int64_t begin, const Tensor& y, Context&);
  void (*columns_gradient)(const ColumnsGradientArgs&, Context&);
  void (*embedding)(const EmbeddingArgs&, Context&);
  void (*embedding_gradient)(const EmbeddingGradientArgs&, Context&);

  // cross_entropy.h
  void (*cross_entropy)(const CrossEntropyArgs&, Context&);
  void (*cross_entropy_statistics)(const CrossEntropyStatisticsArgs&, Context&);
  void (*combine_statistics)(const Tensor& parts, const Tensor& whole, Context&);
  void (*cross_entropy_of_part)(const CrossEntropyOfPartArgs&, Context&);

  // routing_plan.h: token_offsets of k experts for each token that counts; their experts; what
  // completes a plan; the tokens of its rows.
  void (*offsets_of_k)(const TopKArgs&, const Tensor& token_offsets, Context&);
  void (*choose_top_k)(const TopKArgs&, const Tensor& token_offsets, const Tensor& experts,
                       Context&);
  void (*build_plan)(const RoutingPlan& plan, Context&);
  void (*row_tokens)(const RoutingPlan& plan, const Tensor& tokens, Context&);

  // routing.h, expert_counts.h
  void (*pair_weights)(const PairWeightsArgs&, Context&);
  void (*pair_weights_gradient)(const PairWeightsGradientArgs&, Context&);
  void (*permute)(const Tensor& x, const RoutingPlan& plan, const Tensor& rows, Context&);
  void (*permute_gradient)(const PermuteGradientArgs&, Context&);
  void (*combine)(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan,
                  const Tensor& y, Context&);
  void (*combine_gradient)(const CombineGradientArgs&, Context&);
  void (*weights_by_row)(const Tensor& weights, const RoutingPlan& plan, const Tensor& y, Context&);
  void (*weights_by_row_gradient)(const WeightsByRowGradientArgs&, Context&);
  void (*expert_counts)(const ExpertCountsArgs&, Context&);
  void (*expert_fractions)(const Tensor& counts, const Tensor& fractions, Context&);
  void (*follow_counts)(const FollowCountsArgs&, Context&);

  // row_slots.h
  void (*row_slots)(const RowSlotsArgs&, Context&);
  void (*scatter_rows)(const ScatterRowsArgs&, Context&);
  void (*gather_rows)(const GatherRowsArgs&, Context&);

  // router_losses.h
  void (*balance_loss)(const Tensor& scores, const BalanceLossOptions&, const Tensor& value,
                       Context&);
  void (*balance_loss_gradient)(const Tensor& scores, const BalanceLossOptions&,
                                const RouterLossGradientArgs&, Context&);
  void (*z_loss)(const Tensor& logits, const ZLossOptions&, const Tensor& value, Context&);
  void (*z_loss_gradient)(const Tensor& logits, const ZLossOptions&, const RouterLossGradientArgs&,
                          Context&);

  // adamw.h
  void (*adamw)(const AdamWArgs&, Context&);
  void (*decide_update)(const DecideUpdateArgs&, Context&);
};

// What computes on operands of `dtype`: F64 is computed by the host, wherever it lies.
const Backend& BackendFor(DType dtype, const Context& ctx);

}  // namespace moebius::kernels
