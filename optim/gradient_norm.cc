#include "optim/gradient_norm.h"

#include "kernels/elementwise.h"

namespace moebius {

Tensor SquaredGradientNorm(const GradientBuckets& gradients, Mesh& mesh, Context& context) {
  const auto count = static_cast<int64_t>(gradients.buckets().size());
  const Tensor sums = context.Zeros(DType::kF64, {count}, "gradient_norm");
  for (int64_t b = 0; b < count; ++b) {
    if (!gradients.buckets()[b].is_first_replica) continue;
    kernels::SumOfSquares(gradients.Share(b), sums.Slice(b, b + 1), context);
  }
  const Tensor total = context.Empty(DType::kF64, {1}, "gradient_norm");
  kernels::Sum({.x = sums, .sum = total}, context);
  mesh.world().AllReduce(total).Wait();
  return total;
}

}  // namespace moebius
