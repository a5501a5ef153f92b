// Implementations for F32 and BF16 on an NVIDIA GPU. Contracts are those of the headers in
// kernels/; shapes are checked there, before the call. Numbers on the device, such as offsets and
// plans, are read there alone: the host waits for nothing. Results depend on operands and sizes
// alone.
#pragma once

#include "kernels/backend.h"

namespace moebius::cuda {

extern const kernels::Backend kBackend;

void PackWeight(const Tensor& w, WeightFormat format, const Tensor& image, Context& ctx);
void Linear(const kernels::LinearArgs& args, Context& ctx);
void LinearInputGradient(const kernels::LinearInputGradientArgs& args, Context& ctx);
void LinearSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, Context& ctx);
void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& ctx);
void LinearSum(const kernels::LinearSumArgs& args, Context& ctx);

void Attention(const kernels::AttentionArgs& args, Context& ctx);
void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& ctx);

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx,
             const kernels::WholeRows& whole);
void RowProducts(const kernels::RowProductsArgs& args, Context& ctx);
void RmsNormInputGradient(const kernels::RmsNormInputGradientArgs& args, Context& ctx);
void RmsNormWeightGradient(const kernels::RmsNormWeightGradientArgs& args, Context& ctx);

void Rotary(const kernels::RotaryArgs& args, Context& ctx);

void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& h, Context& ctx);
void SwiGluGradient(const kernels::SwiGluGradientArgs& args, Context& ctx);
// What `product`, w^T dy in F32, means for gate and up.
void WeightedSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, const Tensor& product,
                            Context& ctx);
void Softmax(const Tensor& z, const Tensor& p, Context& ctx);
void SoftmaxGradient(const kernels::ScoreGradientArgs& args, Context& ctx);
void Sigmoid(const Tensor& z, const Tensor& s, Context& ctx);
void SigmoidGradient(const kernels::ScoreGradientArgs& args, Context& ctx);

void Add(const Tensor& a, const Tensor& b, const Tensor& y, Context& ctx);
void Cast(const kernels::CastArgs& args, Context& ctx);
void Scale(const Tensor& x, double factor, Context& ctx);
void Sum(const kernels::SumArgs& args, Context& ctx);
void SumOfSquares(const Tensor& x, const Tensor& sum, Context& ctx);

void Columns(const Tensor& x, int64_t begin, const Tensor& y, Context& ctx);
void ColumnsGradient(const kernels::ColumnsGradientArgs& args, Context& ctx);

void Embedding(const kernels::EmbeddingArgs& args, Context& ctx);
void EmbeddingGradient(const kernels::EmbeddingGradientArgs& args, Context& ctx);

void CrossEntropy(const kernels::CrossEntropyArgs& args, Context& ctx);
void CrossEntropyStatistics(const kernels::CrossEntropyStatisticsArgs& args, Context& ctx);
void CombineStatistics(const Tensor& parts, const Tensor& whole, Context& ctx);
void CrossEntropyOfPart(const kernels::CrossEntropyOfPartArgs& args, Context& ctx);

void OffsetsOfK(const kernels::TopKArgs& args, const Tensor& token_offsets, Context& ctx);
void ChooseTopK(const kernels::TopKArgs& args, const Tensor& token_offsets, const Tensor& experts,
                Context& ctx);
void BuildPlan(const RoutingPlan& plan, Context& ctx);
void RowTokens(const RoutingPlan& plan, const Tensor& tokens, Context& ctx);

void PairWeights(const kernels::PairWeightsArgs& args, Context& ctx);
void PairWeightsGradient(const kernels::PairWeightsGradientArgs& args, Context& ctx);
void Permute(const Tensor& x, const RoutingPlan& plan, const Tensor& rows, Context& ctx);
void PermuteGradient(const kernels::PermuteGradientArgs& args, Context& ctx);
void Combine(const Tensor& rows, const Tensor& weights, const RoutingPlan& plan, const Tensor& y,
             Context& ctx);
void CombineGradient(const kernels::CombineGradientArgs& args, Context& ctx);
void WeightsByRow(const Tensor& weights, const RoutingPlan& plan, const Tensor& y, Context& ctx);
void WeightsByRowGradient(const kernels::WeightsByRowGradientArgs& args, Context& ctx);
void ExpertCounts(const kernels::ExpertCountsArgs& args, Context& ctx);
void ExpertFractions(const Tensor& counts, const Tensor& fractions, Context& ctx);
void FollowCounts(const kernels::FollowCountsArgs& args, Context& ctx);

void RowSlots(const kernels::RowSlotsArgs& args, Context& ctx);
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

void AdamW(const kernels::AdamWArgs& args, Context& ctx);
void DecideUpdate(const kernels::DecideUpdateArgs& args, Context& ctx);

}  // namespace moebius::cuda
