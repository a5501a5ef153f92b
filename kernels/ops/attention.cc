#include "kernels/ops/attention.h"

namespace moebius::ops {

Var Attention(Tape& tape, const Var& q, const Var& k, const Var& v, const AttentionShape& shape,
              const Tensor& document_ids) {
  Context& context = tape.context();
  const Tensor y = context.Empty(q.dtype(), q.shape(), "attention.y");
  const Tensor logsumexp = context.Empty(q.dtype() == DType::kF64 ? DType::kF64 : DType::kF32,
                                         {q.shape()[0], shape.num_heads}, "attention.logsumexp");
  kernels::Attention({.shape = shape,
                      .q = q.value(),
                      .k = k.value(),
                      .v = v.value(),
                      .document_ids = document_ids,
                      .y = y,
                      .logsumexp = logsumexp},
                     context);

  const Saved saved_q = tape.Save(q.value(), "attention.q");
  const Saved saved_k = tape.Save(k.value(), "attention.k");
  const Saved saved_v = tape.Save(v.value(), "attention.v");
  const Saved saved_y = tape.Save(y, "attention.y");
  const Saved saved_logsumexp = tape.Save(logsumexp, "attention.logsumexp");
  const bool documents = document_ids.defined();
  const Saved saved_ids = documents ? tape.Save(document_ids, "attention.document_ids") : Saved();
  return tape.Record(y, [=, q = q.id(), k = k.id(), v = v.id()](Tape& tape, const Tensor& dy) {
    const GradientSlot dq = tape.Gradient(q), dk = tape.Gradient(k), dv = tape.Gradient(v);
    kernels::AttentionGradient({.shape = shape,
                                .q = tape.Load(saved_q),
                                .k = tape.Load(saved_k),
                                .v = tape.Load(saved_v),
                                .document_ids = documents ? tape.Load(saved_ids) : Tensor(),
                                .y = tape.Load(saved_y),
                                .logsumexp = tape.Load(saved_logsumexp),
                                .dy = dy,
                                .dq = dq.tensor,
                                .dk = dk.tensor,
                                .dv = dv.tensor,
                                .accumulate_q = dq.accumulate,
                                .accumulate_k = dk.accumulate,
                                .accumulate_v = dv.accumulate},
                               tape.context());
  });
}

}  // namespace moebius::ops
