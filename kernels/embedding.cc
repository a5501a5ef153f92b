#include "kernels/embedding.h"

#include "kernels/checks.h"
#include "kernels/cpu/cpu.h"
#include "kernels/reference/reference.h"

namespace moebius::kernels {
namespace {

void CheckTable(const Tensor& tokens, const Tensor& w, const Tensor& y) {
  const auto [T] = Dims<1>(tokens);
  const auto [V, D] = Dims<2>(w);
  CheckDType(tokens, DType::kI32);
  CHECK_EQ(y.shape(), (Shape{T, D}));
  CheckDType(w, PreciseDType(y.dtype()));
  if (tokens.device().is_meta()) return;
  for (const int32_t token : tokens.span<int32_t>())
    CHECK(0 <= token && token < V) << "token " << token << " of " << V;
}

}  // namespace

void Embedding(const Tensor& tokens, const Tensor& w, const Tensor& y, Context& ctx) {
  CheckTable(tokens, w, y);
  if (ctx.device().is_meta()) return;
  y.dtype() == DType::kF64 ? reference::Embedding(tokens, w, y, ctx)
                           : cpu::Embedding(tokens, w, y, ctx);
}

void EmbeddingGradient(const EmbeddingGradientArgs& args, Context& ctx) {
  CheckTable(args.tokens, args.dw, args.dy);
  if (ctx.device().is_meta() || args.dw.size() == 0) return;
  args.dy.dtype() == DType::kF64 ? reference::EmbeddingGradient(args, ctx)
                                 : cpu::EmbeddingGradient(args, ctx);
}

}  // namespace moebius::kernels
