#include "kernels/embedding.h"

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace moebius::kernels {
namespace {

void CheckTable(const Tensor& tokens, const Tensor& w, const VocabularyRange& range,
                const Tensor& y) {
  const auto [T] = Dims<1>(tokens);
  const auto [V, D] = Dims<2>(w);
  CheckDType(tokens, DType::kI32);
  CHECK_EQ(y.shape(), (Shape{T, D}));
  CheckDType(w, PreciseDType(y.dtype()));
  const int64_t size = range.size == 0 ? V : range.size;
  CHECK(0 <= range.first && range.first + V <= size) << "not a part of the vocabulary";
  // What lies on an accelerator is not read for a check.
  if (tokens.device().is_meta() || tokens.device().is_cuda()) return;
  for (const int32_t token : tokens.span<int32_t>())
    CHECK(0 <= token && token < size) << "token " << token << " of " << size;
}

}  // namespace

void Embedding(const EmbeddingArgs& args, Context& ctx) {
  CheckTable(args.tokens, args.w, args.range, args.y);
  const OpScope op = ctx.Start(Moves("embedding", args.y, args.y));
  if (op.is_dry()) return;
  BackendFor(args.y.dtype(), ctx).embedding(args, ctx);
}

void EmbeddingGradient(const EmbeddingGradientArgs& args, Context& ctx) {
  CheckTable(args.tokens, args.dw, args.range, args.dy);
  const OpScope op = ctx.Start(Moves("embedding.gradient", args.dy, args.dy, args.dw));
  if (op.is_dry() || args.dw.size() == 0) return;
  BackendFor(args.dy.dtype(), ctx).embedding_gradient(args, ctx);
}

}  // namespace moebius::kernels
