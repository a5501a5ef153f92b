#include <algorithm>

#include "kernels/reference/reference.h"

namespace moebius::reference {

void Embedding(const Tensor& tokens, const Tensor& w, const Tensor& y, Context& ctx) {
  const auto [T, D] = Dims<2>(y);
  ctx.pool().ForRange(T, 64, [&, D = D](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      std::copy_n(w.data<double>() + tokens.data<int32_t>()[t] * D, D, y.data<double>() + t * D);
  });
}

void EmbeddingGradient(const kernels::EmbeddingGradientArgs& args, Context&) {
  const auto [T, D] = Dims<2>(args.dy);
  double* dw = args.dw.data<double>();
  if (!args.accumulate) std::fill_n(dw, args.dw.size(), 0.0);
  for (int64_t t = 0; t < T; ++t) {
    const int64_t token = args.tokens.data<int32_t>()[t];
    for (int64_t d = 0; d < D; ++d) dw[token * D + d] += args.dy.data<double>()[t * D + d];
  }
}

}  // namespace moebius::reference
