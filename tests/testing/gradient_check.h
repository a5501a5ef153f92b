// The one numeric gradient check of all ops.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "core/tape/tape.h"

namespace moebius::test {

// What a checked function answers: values, and ends of the tape with the coefficient that their
// gradients carry.
struct Outputs {
  std::vector<Var> values = {};
  std::vector<std::pair<Tensor, double>> losses = {};  // [1] F64
};
using CheckedFn = std::function<Outputs(Tape& tape, const std::vector<Var>& inputs)>;

// Weights whose image is the value: enough for F64.
class ValueWeights final : public WeightSource {
 public:
  Tensor Lease(Parameter& parameter, WeightFormat, DType) override { return parameter.value; }
};

// A trained tensor with room for its gradient.
Parameter MakeParameter(Context& ctx, const Tensor& value);

// Ranks that check an op with a collective inside. All call CheckGradients together, with tensors
// of the same shapes.
struct CheckedRanks {
  int size = 1, rank = 0;
  std::function<double(double)> sum = nullptr;  // over the ranks
};

// Expects of L = <r, values> + sum of coefficient * loss, with random r, that backward gives the
// derivatives of central differences in double, for every element of `inputs` and `parameters`
// (F64), also
//   * where a gradient slot was written before: then the op adds to it;
//   * with deferred weight gradients: the same bits;
//   * and that nothing stays saved.
// Over several ranks L is the sum of theirs, and each element moves on one rank alone.
void CheckGradients(Context& ctx, const CheckedFn& fn, const std::vector<Tensor>& inputs,
                    const std::vector<Parameter*>& parameters = {}, const CheckedRanks& ranks = {});

}  // namespace moebius::test
