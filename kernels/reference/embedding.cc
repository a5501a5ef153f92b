#include <algorithm>

#include "kernels/reference/reference.h"

namespace moebius::reference {

void Embedding(const kernels::EmbeddingArgs& args, Context& ctx) {
  const auto [V, D] = Dims<2>(args.w);
  ctx.pool().ForRange(args.y.shape()[0], 64, [&, V = V, D = D](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = args.tokens.data<int32_t>()[t] - args.range.first;
      double* y = args.y.data<double>() + t * D;
      if (row < 0 || row >= V) {
        std::fill_n(y, D, 0.0);
      } else {
        std::copy_n(args.w.data<double>() + row * D, D, y);
      }
    }
  });
}

void EmbeddingGradient(const kernels::EmbeddingGradientArgs& args, Context&) {
  const auto [T, D] = Dims<2>(args.dy);
  double* dw = args.dw.data<double>();
  if (!args.accumulate) std::fill_n(dw, args.dw.size(), 0.0);
  for (int64_t t = 0; t < T; ++t) {
    const int64_t row = args.tokens.data<int32_t>()[t] - args.range.first;
    if (row < 0 || row >= args.dw.shape()[0]) continue;
    for (int64_t d = 0; d < D; ++d) dw[row * D + d] += args.dy.data<double>()[t * D + d];
  }
}

}  // namespace moebius::reference
