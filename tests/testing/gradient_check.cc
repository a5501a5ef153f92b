#include "tests/testing/gradient_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::test {
namespace {

constexpr double kPreviousGradient = 3;  // what a slot holds that was written before
constexpr double kStep = 1e-5;

class Check {
 public:
  Check(Context& ctx, const CheckedFn& fn, const std::vector<Tensor>& inputs,
        const std::vector<Parameter*>& parameters, const CheckedRanks& ranks)
      : ctx_(ctx), fn_(fn), inputs_(inputs), parameters_(parameters), ranks_(ranks) {}

  const CheckedRanks& ranks() const { return ranks_; }

  double Loss() {
    Tape tape(ctx_, weights_, Tape::Mode::kForwardOnly);
    const Outputs outputs = fn_(tape, Vars(tape));
    double loss = 0;
    for (size_t o = 0; o < outputs.values.size(); ++o) {
      const Tensor y = outputs.values[o].value(), r = Projection(y, o);
      for (int64_t i = 0; i < y.size(); ++i) loss += r.data<double>()[i] * y.data<double>()[i];
    }
    for (const auto& [value, coefficient] : outputs.losses)
      loss += coefficient * value.data<double>()[0];
    return ranks_.sum ? ranks_.sum(loss) : loss;
  }

  // Gradients of the inputs, then of the parameters.
  std::vector<Tensor> Gradients(WeightGradients when, bool written_before) {
    for (Parameter* parameter : parameters_) {
      parameter->gradient_written = written_before;
      std::ranges::fill(parameter->gradient.span<double>(),
                        written_before ? kPreviousGradient : std::nan(""));
    }
    Tape tape(ctx_, weights_);
    const std::vector<Var> vars = Vars(tape);
    const Outputs outputs = fn_(tape, vars);
    for (const Var& var : vars)
      if (written_before) WritePrevious(tape, var.id());
    std::vector<Tape::Seed> seeds;
    for (size_t o = 0; o < outputs.values.size(); ++o)
      seeds.push_back({outputs.values[o].id(), Projection(outputs.values[o].value(), o)});
    tape.Backward(seeds, when);
    tape.RunDeferred();
    for (const auto& [name, bytes] : tape.saved_bytes()) EXPECT_EQ(bytes, 0) << name;

    std::vector<Tensor> gradients;
    for (const Var& var : vars) gradients.push_back(tape.LeafGradient(var.id()));
    for (const Parameter* parameter : parameters_)
      gradients.push_back(Convert(ctx_, parameter->gradient, DType::kF64));
    return gradients;
  }

 private:
  std::vector<Var> Vars(Tape& tape) {
    std::vector<Var> vars;
    for (const Tensor& input : inputs_) vars.push_back(tape.Input(input));
    return vars;
  }

  Tensor Projection(const Tensor& y, size_t o) {
    return RandomTensor(ctx_, DType::kF64, y.shape(), "projection " + std::to_string(o));
  }

  static void WritePrevious(Tape& tape, VarId x) {
    tape.RecordLoss([=](Tape& tape) {
      std::ranges::fill(tape.Gradient(x).tensor.span<double>(), kPreviousGradient);
    });
  }

  Context& ctx_;
  const CheckedFn& fn_;
  const std::vector<Tensor>& inputs_;
  const std::vector<Parameter*>& parameters_;
  const CheckedRanks& ranks_;
  ValueWeights weights_;
};

void ExpectDerivatives(Check& check, const Tensor& x, const Tensor& dx, const std::string& name) {
  ASSERT_EQ(dx.shape(), x.shape()) << name;
  std::vector<double> expected(x.size());
  double largest = 1e-3;
  const int64_t moves = x.size() * check.ranks().size;  // of element i on rank 0, rank 1, ...
  for (int64_t move = 0; move < moves; ++move) {
    const int64_t i = move / check.ranks().size;
    const bool moves_here = move % check.ranks().size == check.ranks().rank;
    double& element = x.data<double>()[i];
    const double value = element;
    if (moves_here) element = value + kStep;
    const double above = check.Loss();
    if (moves_here) element = value - kStep;
    const double below = check.Loss();
    element = value;
    if (!moves_here) continue;
    expected[i] = (above - below) / (2 * kStep);
    largest = std::max(largest, std::abs(expected[i]));
  }
  for (int64_t i = 0; i < x.size(); ++i)
    ASSERT_NEAR(dx.data<double>()[i], expected[i], 1e-7 * largest)
        << "element " << i << " of the gradient of " << name;
}

void ExpectAdded(const Tensor& added, const Tensor& gradient, const std::string& name) {
  for (int64_t i = 0; i < gradient.size(); ++i) {
    const double dx = gradient.data<double>()[i];
    ASSERT_NEAR(added.data<double>()[i] - kPreviousGradient, dx,
                1e-12 * (kPreviousGradient + std::abs(dx)))
        << name << " does not add to what its slot holds";
  }
}

}  // namespace

Parameter MakeParameter(Context& ctx, const Tensor& value) {
  return {.name = "parameter",
          .placement = {},
          .initializer = {},
          .value = value,
          .gradient = ctx.Zeros(value.dtype(), value.shape(), "test")};
}

void CheckGradients(Context& ctx, const CheckedFn& fn, const std::vector<Tensor>& inputs,
                    const std::vector<Parameter*>& parameters, const CheckedRanks& ranks) {
  Check check(ctx, fn, inputs, parameters, ranks);
  const auto gradients = check.Gradients(WeightGradients::kNow, false);
  const auto deferred = check.Gradients(WeightGradients::kDeferred, false);
  const auto added = check.Gradients(WeightGradients::kNow, true);

  for (size_t i = 0; i < gradients.size(); ++i) {
    const bool is_input = i < inputs.size();
    const std::string name =
        is_input ? "input " + std::to_string(i) : "parameter " + std::to_string(i - inputs.size());
    const Tensor& x = is_input ? inputs[i] : parameters[i - inputs.size()]->value;
    ASSERT_TRUE(gradients[i].defined()) << name << " has no gradient";
    ExpectDerivatives(check, x, gradients[i], name);
    ExpectSameBits(deferred[i], gradients[i]);
    ExpectAdded(added[i], gradients[i], name);
  }
}

}  // namespace moebius::test
