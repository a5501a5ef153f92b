// Implementations for F32 and BF16 on the CPU: rows of the instruction set (simd_rows.h) and plain
// loops that the compiler vectorises (loops.h), in parallel over rows. A result depends on sizes
// alone, never on the number of threads. Contracts are those of the headers in kernels/; shapes are
// checked there, before the call.
#pragma once

#include "kernels/activations.h"
#include "kernels/adamw.h"
#include "kernels/columns.h"
#include "kernels/cpu/simd.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/router_losses.h"
#include "kernels/routing.h"
#include "kernels/routing_plan.h"
#include "kernels/row_slots.h"

namespace moebius::cpu {

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

void AdamW(const kernels::AdamWArgs& args, Context& ctx, const SimdKernels& simd);

}  // namespace moebius::cpu
