#include "optim/gradient_norm.h"

#include <cmath>

#include "core/tensor/copy.h"
#include "kernels/elementwise.h"

namespace moebius {

double GradientNorm(const GradientBuckets& gradients, Mesh& mesh, Context& context) {
  const auto count = static_cast<int64_t>(gradients.buckets().size());
  const Tensor sums = context.Zeros(DType::kF64, {count}, "gradient_norm");
  for (int64_t b = 0; b < count; ++b) {
    if (!gradients.buckets()[b].is_first_replica) continue;
    kernels::SumOfSquares(gradients.Share(b), sums.Slice(b, b + 1), context);
  }
  double total = 0;
  if (!context.device().is_meta()) {
    const Tensor here = ToHost(sums, context);
    for (const double sum : here.span<double>()) total += sum;
  }
  mesh.world().AllReduce(std::span(&total, 1)).Wait();
  return std::sqrt(total);
}

}  // namespace moebius
