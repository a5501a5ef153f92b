#include "optim/gradient_norm.h"

#include <cmath>

#include "kernels/elementwise.h"

namespace moebius {

double GradientNorm(const std::vector<Parameter*>& parameters, Mesh& mesh, Context& context) {
  if (context.device().is_meta()) return 0;
  const auto count = static_cast<int64_t>(parameters.size());
  const Tensor sums = context.Zeros(DType::kF64, {count}, "gradient_norm");
  for (int64_t i = 0; i < count; ++i) {
    if (!parameters[i]->placement.IsFirstReplica(mesh.position())) continue;
    kernels::SumOfSquares(parameters[i]->gradient, sums.Slice(i, i + 1), context);
  }
  mesh.world().AllReduce(sums).Wait();
  double total = 0;
  for (const double sum : sums.span<double>()) total += sum;
  return std::sqrt(total);
}

}  // namespace moebius
