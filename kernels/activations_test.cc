#include "kernels/activations.h"

#include <gtest/gtest.h>

#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

using test::ExpectClose;
using test::RandomTensor;

const Shape kShapes[] = {{33, 70}, {1, 1}, {3, 5}, {0, 4}};

class ActivationsTest : public testing::TestWithParam<DType> {
 protected:
  Tensor Random(const Shape& shape, const char* name, double scale = 1) {
    return RandomTensor(ctx_, GetParam(), shape, name, scale);
  }
  Tensor Exact(const Tensor& x) { return ctx_.Exact(x); }

  test::DeviceContext ctx_{{.num_threads = 2}};
};

TEST_P(ActivationsTest, SwiGluAgreesWithTheReference) {
  for (const Shape& shape : kShapes) {
    const Tensor gate = Random(shape, "gate", 5), up = Random(shape, "up");
    const Tensor dh = Random(shape, "dh");
    const Tensor h = ctx_.Empty(GetParam(), shape, "h"), h_exact = Exact(h);
    SwiGlu(gate, up, h, ctx_);
    SwiGlu(Exact(gate), Exact(up), h_exact, ctx_.host());
    ExpectClose(h, h_exact, 1);

    const Tensor dgate = Random(shape, "dgate"), dup = Random(shape, "dup");
    SwiGluGradientArgs args = {.gate = gate,
                               .up = up,
                               .dh = dh,
                               .dgate = dgate,
                               .accumulate_dgate = true,
                               .dup = dup,
                               .accumulate_dup = false};
    SwiGluGradientArgs exact = {Exact(gate), Exact(up),  Exact(dh), Exact(dgate),
                                true,        Exact(dup), false};
    SwiGluGradient(args, ctx_);
    SwiGluGradient(exact, ctx_.host());
    ExpectClose(dgate, exact.dgate, 1);
    ExpectClose(dup, exact.dup, 1);
  }
}

using Forward = void (*)(const Tensor&, const Tensor&, Context&);
using Gradient = void (*)(const ScoreGradientArgs&, Context&);

TEST_P(ActivationsTest, ScoresAgreeWithTheReference) {
  const std::pair<Forward, Gradient> kernels[] = {{Softmax, SoftmaxGradient},
                                                  {Sigmoid, SigmoidGradient}};
  for (const auto& [forward, gradient] : kernels) {
    for (const Shape& shape : kShapes) {
      const Tensor z = Random(shape, "z", 10), dy = Random(shape, "dy");
      const Tensor y = ctx_.Empty(GetParam(), shape, "y"), y_exact = Exact(y);
      forward(z, y, ctx_);
      forward(Exact(z), y_exact, ctx_.host());
      ExpectClose(y, y_exact, shape[1]);

      for (const bool accumulate : {false, true}) {
        const Tensor dz = Random(shape, "dz"), dz_exact = Exact(dz);
        gradient({.y = y, .dy = dy, .dz = dz, .accumulate = accumulate}, ctx_);
        gradient({Exact(y), Exact(dy), dz_exact, accumulate}, ctx_.host());
        // Relative to the terms, which cancel: to dy and not to dz.
        for (int64_t i = 0; i < dz.size(); ++i)
          ASSERT_NEAR(test::ToDoubles(dz)[i], dz_exact.data<double>()[i],
                      8 * test::Tolerance(GetParam(), shape[1]));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, ActivationsTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return NameOf(info.param); });

TEST(Activations, ExtremeScoresStayFinite) {
  test::DeviceContext ctx;
  const Tensor z = test::FromValues(ctx, DType::kF32, {1, 3}, {3e38, -3e38, 3e38});
  const Tensor y = ctx.Empty(DType::kF32, {1, 3}, "y");
  Softmax(z, y, ctx);
  for (const int i : {0, 1, 2}) EXPECT_NEAR(test::ToDoubles(y)[i], i == 1 ? 0 : 0.5, 1e-6);
  Sigmoid(z, y, ctx);
  for (const int i : {0, 1, 2}) EXPECT_NEAR(test::ToDoubles(y)[i], i == 1 ? 0 : 1, 1e-6);
}

}  // namespace
}  // namespace moebius::kernels
