#include "kernels/ops/embedding.h"

namespace moebius::ops {

Var Embedding(Tape& tape, const Tensor& tokens, Parameter* w, DType compute,
              const VocabularyRange& range) {
  const auto [T] = Dims<1>(tokens);
  const auto [V, D] = Dims<2>(w->value);
  const Tensor y = tape.context().Empty(compute, {T, D}, "embedding.y");
  kernels::Embedding({.tokens = tokens,
                      .w = tape.Weight(w, WeightFormat::kPlain, w->value.dtype()),
                      .range = range,
                      .y = y},
                     tape.context());

  const Saved saved_tokens = tape.Save(tokens, "embedding.tokens");
  return tape.Record(y, [=](Tape& tape, const Tensor& dy) {
    const Saved saved_dy = tape.Save(dy, "embedding.dy");
    tape.WeightGradient({saved_tokens, saved_dy}, [=](Tape& tape) {
      const GradientSlot dw = tape.ParameterGradient(w);
      kernels::EmbeddingGradient({.tokens = tape.Load(saved_tokens),
                                  .dy = tape.Load(saved_dy),
                                  .range = range,
                                  .dw = dw.tensor,
                                  .accumulate = dw.accumulate},
                                 tape.context());
    });
  });
}

}  // namespace moebius::ops
