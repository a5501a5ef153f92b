// Obvious implementations in double precision, on F64 tensors: the FP64 path of the trainer, and
// what every other implementation is tested against. Contracts are those of the headers in
// kernels/; shapes are checked there, before the call.
#pragma once

#include "kernels/activations.h"
#include "kernels/adamw.h"
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

namespace moebius::reference {

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx,
             const kernels::WholeRows& whole);
void RowProducts(const kernels::RowProductsArgs& args, Context& ctx);
void RmsNormInputGradient(const kernels::RmsNormInputGradientArgs& args, Context& ctx);
void RmsNormWeightGradient(const kernels::RmsNormWeightGradientArgs& args, Context& ctx);

void Rotary(const kernels::RotaryArgs& args, Context& ctx);

void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& h, Context& ctx);
void SwiGluGradient(const kernels::SwiGluGradientArgs& args, Context& ctx);
void Softmax(const Tensor& z, const Tensor& p, Context& ctx);
void SoftmaxGradient(const kernels::ScoreGradientArgs& args, Context& ctx);
void Sigmoid(const Tensor& z, const Tensor& s, Context& ctx);
void SigmoidGradient(const kernels::ScoreGradientArgs& args, Context& ctx);

void Add(const Tensor& a, const Tensor& b, const Tensor& y, Context& ctx);
void Cast(const kernels::CastArgs& args, Context& ctx);
void Scale(const Tensor& x, double factor, Context& ctx);
void SumOfSquares(const Tensor& x, const Tensor& sum, Context& ctx);

void Columns(const Tensor& x, int64_t begin, const Tensor& y, Context& ctx);
void ColumnsGradient(const kernels::ColumnsGradientArgs& args, Context& ctx);

void Embedding(const kernels::EmbeddingArgs& args, Context& ctx);
void EmbeddingGradient(const kernels::EmbeddingGradientArgs& args, Context& ctx);

void CrossEntropy(const kernels::CrossEntropyArgs& args, Context& ctx);
void CrossEntropyStatistics(const kernels::CrossEntropyStatisticsArgs& args, Context& ctx);
void CrossEntropyOfPart(const kernels::CrossEntropyOfPartArgs& args, Context& ctx);

// experts[i, 0 .. k) are the best of scores + bias of the i-th token that is not padding.
void ChooseTopK(const kernels::TopKArgs& args, const Tensor& experts, Context& ctx);

void PairWeights(const kernels::PairWeightsArgs& args, Context& ctx);
void PairWeightsGradient(const kernels::PairWeightsGradientArgs& args, Context& ctx);
void Permute(const Tensor& x, const RoutingPlan& plan, const Tensor& rows, Context& ctx);
void PermuteGradient(const kernels::PermuteGradientArgs& args, Context& ctx);
void Combine(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             Context& ctx);
void CombineGradient(const kernels::CombineGradientArgs& args, Context& ctx);

void ScatterRows(const kernels::ScatterRowsArgs& args, Context& ctx);
void GatherRows(const kernels::GatherRowsArgs& args, Context& ctx);

void BalanceLoss(const Tensor& scores, const kernels::BalanceLossOptions& options,
                 const Tensor& value, Context& ctx);
void BalanceLossGradient(const Tensor& scores, const kernels::BalanceLossOptions& options,
                         const kernels::RouterLossGradientArgs& gradient, Context& ctx);
void ZLoss(const Tensor& logits, const kernels::ZLossOptions& options, const Tensor& value,
           Context& ctx);
void ZLossGradient(const Tensor& logits, const kernels::ZLossOptions& options,
                   const kernels::RouterLossGradientArgs& gradient, Context& ctx);

// Of any dtype: row_slots.cc, exact.cc.
void RowSlots(const kernels::RowSlotsArgs& args, Context& ctx);
void ConvertWeight(const Tensor& w, WeightFormat format, const Tensor& image, Context& ctx);
void CombineStatistics(const Tensor& parts, const Tensor& whole, Context& ctx);
void OffsetsOfK(const kernels::TopKArgs& args, const Tensor& token_offsets, Context& ctx);
void BuildPlan(const RoutingPlan& plan, Context& ctx);
void RowTokens(const RoutingPlan& plan, const Tensor& tokens, Context& ctx);
void WeightsByRow(const Tensor& weights, const RoutingPlan& plan, const Tensor& y, Context& ctx);
void WeightsByRowGradient(const kernels::WeightsByRowGradientArgs& args, Context& ctx);
void ExpertCounts(const kernels::ExpertCountsArgs& args, Context& ctx);
void ExpertFractions(const Tensor& counts, const Tensor& fractions, Context& ctx);
void FollowCounts(const kernels::FollowCountsArgs& args, Context& ctx);
void Sum(const kernels::SumArgs& args, Context& ctx);
void DecideUpdate(const kernels::DecideUpdateArgs& args, Context& ctx);

void AdamW(const kernels::AdamWArgs& args, Context& ctx);

}  // namespace moebius::reference
