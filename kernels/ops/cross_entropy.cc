#include "kernels/ops/cross_entropy.h"

#include <algorithm>

#include "kernels/checks.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace moebius::ops {
namespace {

constexpr int64_t kMinChunkTokens = 64;  // products need some rows

int64_t ChunkTokens(int64_t T, const Parameter* head, const VocabularyPart& part, Context& ctx) {
  const int64_t V = std::max({int64_t{1}, head->value.shape()[0], part.size});
  return std::min(T, std::max(kMinChunkTokens, ctx.chunk_elements() / V));
}

// Calls fn(begin, end, logits) for chunks of tokens, with logits [end - begin, V] in F32 or F64.
template <class Fn>
void ForChunks(Tape& tape, const Tensor& x, Parameter* head, int64_t chunk, const Fn& fn) {
  const auto [T, D] = Dims<2>(x);
  const auto [V, D_head] = Dims<2>(head->value);
  CHECK_EQ(D, D_head) << head->name;
  const Tensor w = tape.Weight(head, WeightFormat::kPacked, x.dtype());
  const Tensor buffer =
      tape.context().Empty(kernels::PreciseDType(x.dtype()), {chunk, V}, "cross_entropy.logits");
  int64_t begin = 0;
  do {  // at least once: no tokens, too, must write the head's gradient
    const int64_t end = std::min(begin + chunk, T);
    const Tensor logits = buffer.Slice(0, end - begin);
    kernels::Linear({.x = x.Slice(begin, end), .w = w, .offsets = {}, .y = logits}, tape.context());
    fn(begin, end, logits);
    begin = end;
  } while (begin < T);
}

// The gradients of one chunk from those of its logits.
void AddGradients(Tape& tape, const Tensor& x, const Tensor& dlogits, Parameter* head,
                  const Tensor& dx, const GradientSlot& dw) {
  kernels::LinearInputGradient({.dy = dlogits,
                                .w = tape.Weight(head, WeightFormat::kPackedTransposed, x.dtype()),
                                .offsets = {},
                                .dx = dx},
                               tape.context());
  kernels::LinearWeightGradient(
      {.dy = dlogits, .x = x, .offsets = {}, .dw = dw.tensor, .accumulate = dw.accumulate},
      tape.context());
}

// The losses, and gradients of logits if asked for, of one chunk.
void LossesOfChunk(const kernels::CrossEntropyArgs& chunk, const VocabularyPart& part,
                   Context& ctx) {
  if (!part.combine) return kernels::CrossEntropy(chunk, ctx);
  const Tensor statistics =
      ctx.Empty(DType::kF64, {chunk.logits.shape()[0], 3}, "cross_entropy.statistics");
  kernels::CrossEntropyStatistics({.logits = chunk.logits,
                                   .labels = chunk.labels,
                                   .weights = chunk.weights,
                                   .first = part.first,
                                   .statistics = statistics},
                                  ctx);
  part.combine(statistics);
  kernels::CrossEntropyOfPart({.logits = chunk.logits,
                               .labels = chunk.labels,
                               .weights = chunk.weights,
                               .first = part.first,
                               .statistics = statistics,
                               .nll = chunk.nll,
                               .dlogits = chunk.dlogits},
                              ctx);
}

Tensor Sum(const Tensor& nll, Context& ctx) {
  const Tensor sum = ctx.Empty(DType::kF64, {1}, "cross_entropy.loss");
  kernels::Sum({.x = nll, .sum = sum}, ctx);
  return sum;
}

}  // namespace

Tensor TokenLosses(Tape& tape, const Var& x, Parameter* head, const Tensor& labels,
                   const Tensor& weights, const VocabularyPart& part) {
  Context& ctx = tape.context();
  const Tensor nll = ctx.Empty(DType::kF64, labels.shape(), "cross_entropy.nll");
  const int64_t chunk = ChunkTokens(labels.size(), head, part, ctx);
  ForChunks(tape, x.value(), head, chunk, [&](int64_t begin, int64_t end, const Tensor& logits) {
    LossesOfChunk({.logits = logits,
                   .labels = labels.Slice(begin, end),
                   .weights = weights.Slice(begin, end),
                   .nll = nll.Slice(begin, end)},
                  part, ctx);
  });
  return nll;
}

Tensor CrossEntropyLoss(Tape& tape, const Var& x, Parameter* head, const Tensor& labels,
                        const Tensor& weights, const VocabularyPart& part) {
  Context& ctx = tape.context();
  if (!tape.keeps()) return Sum(TokenLosses(tape, x, head, labels, weights, part), ctx);

  const auto [T, D] = Dims<2>(x.value());
  const int64_t V = head->value.shape()[0];
  const int64_t chunk = ChunkTokens(T, head, part, ctx);
  const bool in_place = x.dtype() != DType::kBF16;  // dlogits have the dtype of x
  const Tensor dlogits_buffer =
      in_place ? Tensor() : ctx.Empty(x.dtype(), {chunk, V}, "cross_entropy.dlogits");
  const Tensor nll = ctx.Empty(DType::kF64, {T}, "cross_entropy.nll");
  const Tensor dx = ctx.Empty(x.dtype(), {T, D}, "cross_entropy.dx");
  GradientSlot dw = tape.ParameterGradient(head);
  ForChunks(tape, x.value(), head, chunk, [&](int64_t begin, int64_t end, const Tensor& logits) {
    const Tensor dlogits = in_place ? logits : dlogits_buffer.Slice(0, end - begin);
    LossesOfChunk({.logits = logits,
                   .labels = labels.Slice(begin, end),
                   .weights = weights.Slice(begin, end),
                   .nll = nll.Slice(begin, end),
                   .dlogits = dlogits},
                  part, ctx);
    AddGradients(tape, x.value().Slice(begin, end), dlogits, head, dx.Slice(begin, end), dw);
    dw.accumulate = true;
  });

  const Saved saved_dx = tape.Save(dx, "cross_entropy.dx");
  tape.RecordLoss([=, x = x.id()](Tape& tape) {
    const GradientSlot slot = tape.Gradient(x);
    kernels::Cast({.x = tape.Load(saved_dx), .y = slot.tensor, .accumulate = slot.accumulate},
                  tape.context());
  });
  return Sum(nll, ctx);
}

}  // namespace moebius::ops
