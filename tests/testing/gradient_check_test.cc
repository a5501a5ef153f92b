#include "tests/testing/gradient_check.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include "tests/testing/random_tensors.h"

namespace moebius::test {
namespace {

// y = w x^2 elementwise, with mistakes on demand.
struct Mistakes {
  double factor = 1;           // of the input's gradient
  bool never_adds = false;     // to the input's slot
  double weight_factor = 1;    // of the parameter's gradient
  bool keeps_nothing = false;  // the gradient of x is left out
};

Var Square(Tape& tape, const Var& x, Parameter* w, const Mistakes& wrong) {
  const int64_t n = x.value().size();
  const Tensor y = tape.context().Empty(DType::kF64, {n}, "y");
  for (int64_t i = 0; i < n; ++i) {
    const double x_i = x.value().data<double>()[i];
    y.data<double>()[i] = w->value.data<double>()[i] * x_i * x_i;
  }
  const Saved saved_x = tape.Save(x.value(), "square.x");
  return tape.Record(y, [=, x = x.id()](Tape& tape, const Tensor& dy) {
    const double *x_ = tape.Load(saved_x).data<double>(), *dy_ = dy.data<double>();
    if (!wrong.keeps_nothing) {
      const GradientSlot dx = tape.Gradient(x);
      for (int64_t i = 0; i < n; ++i) {
        double& out = dx.tensor.data<double>()[i];
        out = (dx.accumulate && !wrong.never_adds ? out : 0) +
              wrong.factor * 2 * w->value.data<double>()[i] * x_[i] * dy_[i];
      }
    }
    const Saved saved_dy = tape.Save(dy, "square.dy");
    tape.WeightGradient({saved_x, saved_dy}, [=](Tape& tape) {
      const GradientSlot dw = tape.ParameterGradient(w);
      const double *x = tape.Load(saved_x).data<double>(), *dy = tape.Load(saved_dy).data<double>();
      for (int64_t i = 0; i < n; ++i) {
        double& out = dw.tensor.data<double>()[i];
        out = (dw.accumulate ? out : 0) + wrong.weight_factor * x[i] * x[i] * dy[i];
      }
    });
  });
}

void CheckSquare(const Mistakes& wrong) {
  Context ctx;
  Parameter w = MakeParameter(ctx, RandomTensor(ctx, DType::kF64, {5}, "w"));
  CheckGradients(ctx,
                 [&](Tape& tape, const std::vector<Var>& in) {
                   return Outputs{.values = {Square(tape, in[0], &w, wrong)}};
                 },
                 {RandomTensor(ctx, DType::kF64, {5}, "x")}, {&w});
}

TEST(GradientCheck, PassesTheRightGradient) { CheckSquare({}); }

TEST(GradientCheck, CatchesMistakes) {
  EXPECT_FATAL_FAILURE(CheckSquare({.factor = 1 + 1e-5}), "of the gradient of input 0");
  EXPECT_FATAL_FAILURE(CheckSquare({.never_adds = true}), "does not add to what its slot holds");
  EXPECT_FATAL_FAILURE(CheckSquare({.weight_factor = 0.5}), "of the gradient of parameter 0");
  EXPECT_FATAL_FAILURE(CheckSquare({.keeps_nothing = true}), "input 0 has no gradient");
}

}  // namespace
}  // namespace moebius::test
