#include "core/tape/tape.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

class PlainWeights final : public WeightSource {
 public:
  Tensor Lease(Parameter& parameter, WeightFormat, DType) override { return parameter.value; }
};

class TapeTest : public testing::Test {
 protected:
  TapeTest() {
    w_.value = Value({2, 5});
    w_.gradient = Value({0, 0});
  }

  Tensor Value(std::initializer_list<double> numbers) {
    const Tensor x = context_.Empty(DType::kF64, {static_cast<int64_t>(numbers.size())}, "test");
    std::copy(numbers.begin(), numbers.end(), x.data<double>());
    return x;
  }

  // y = x * w elementwise.
  Var Scale(Tape& tape, const Var& x) {
    const Tensor y = context_.Empty(DType::kF64, x.shape(), "y");
    const Tensor w = tape.Weight(&w_, WeightFormat::kPlain, DType::kF64);
    for (int i = 0; i < x.value().size(); ++i) {
      y.data<double>()[i] = x.value().data<double>()[i] * w.data<double>()[i];
    }
    const Saved saved_x = tape.Save(x.value(), "scale.x");
    return tape.Record(y, [=, x = x.id(), w = &w_](Tape& tape, const Tensor& dy) {
      const GradientSlot dx = tape.Gradient(x);
      const Saved saved_dy = tape.Save(dy, "scale.dy");
      for (int i = 0; i < dy.size(); ++i) {
        double& out = dx.tensor.data<double>()[i];
        out = (dx.accumulate ? out : 0) + dy.data<double>()[i] * w->value.data<double>()[i];
      }
      tape.WeightGradient({saved_x, saved_dy}, [=](Tape& tape) {
        const GradientSlot dw = tape.ParameterGradient(w);
        for (int i = 0; i < tape.Load(saved_x).size(); ++i) {
          double& out = dw.tensor.data<double>()[i];
          out = (dw.accumulate ? out : 0) +
                tape.Load(saved_x).data<double>()[i] * tape.Load(saved_dy).data<double>()[i];
        }
      });
    });
  }

  // An end whose gradient is ones.
  void Sum(Tape& tape, const Var& x) {
    tape.RecordLoss([x = x.id()](Tape& tape) {
      const GradientSlot dx = tape.Gradient(x);
      for (double& out : dx.tensor.span<double>()) out = (dx.accumulate ? out : 0) + 1;
    });
  }

  std::vector<double> Numbers(const Tensor& x) {
    const auto numbers = x.span<double>();
    return {numbers.begin(), numbers.end()};
  }

  void ExpectNothingKept(const Tape& tape) {
    for (const auto& [name, bytes] : tape.saved_bytes()) EXPECT_EQ(bytes, 0) << name;
  }

  Context context_;
  PlainWeights weights_;
  Parameter w_{.name = "w", .placement = {}, .initializer = {}, .value = {}, .gradient = {}};
};

TEST_F(TapeTest, GradientsOfAChain) {
  Tape tape(context_, weights_);
  const Var x = tape.Input(Value({1, 3}));
  Sum(tape, Scale(tape, Scale(tape, x)));
  EXPECT_GT(tape.saved_bytes()["scale.x"], 0);
  tape.Backward();
  EXPECT_EQ(Numbers(tape.LeafGradient(x.id())), (std::vector<double>{4, 25}));
  EXPECT_EQ(Numbers(w_.gradient), (std::vector<double>{4, 30}));  // 2 w x
  ExpectNothingKept(tape);
}

TEST_F(TapeTest, FirstWriterWritesLaterOnesAdd) {
  Tape tape(context_, weights_);
  const Var x = tape.Input(Value({1, 1}));
  Sum(tape, x);
  Sum(tape, Scale(tape, x));
  tape.Backward();
  EXPECT_EQ(Numbers(tape.LeafGradient(x.id())), (std::vector<double>{3, 6}));
  // A second micro-batch adds to the parameter's gradient; a new step begins by writing.
  Tape second(context_, weights_);
  Sum(second, Scale(second, second.Input(Value({1, 1}))));
  second.Backward();
  EXPECT_EQ(Numbers(w_.gradient), (std::vector<double>{2, 2}));
}

TEST_F(TapeTest, DeferredWeightGradientsKeepWhatTheyName) {
  Tape tape(context_, weights_);
  Sum(tape, Scale(tape, tape.Input(Value({1, 3}))));
  tape.Backward({}, WeightGradients::kDeferred);
  EXPECT_FALSE(w_.gradient_written);
  EXPECT_GT(tape.saved_bytes()["scale.x"], 0);
  tape.RunDeferred();
  EXPECT_EQ(Numbers(w_.gradient), (std::vector<double>{1, 3}));
  ExpectNothingKept(tape);
}

TEST_F(TapeTest, AStorageIsCountedOnce) {
  Tape tape(context_, weights_);
  const Var x = tape.Input(Value({1, 3}));
  (void)Scale(tape, x);
  (void)Scale(tape, x);
  EXPECT_EQ(tape.saved_bytes()["scale.x"], 16);
}

TEST_F(TapeTest, RecomputeGivesTheSameAndDecidesOnce) {
  for (const auto when : {WeightGradients::kNow, WeightGradients::kDeferred}) {
    w_.gradient_written = false;
    int decisions = 0;
    const BundleFn inner = [&](Tape& tape, const Bundle& in) {
      EXPECT_EQ(tape.Once([&] { return ++decisions; }), decisions);
      Bundle out = in;
      out.Set("x", Scale(tape, in["x"]));
      Sum(tape, out["x"]);  // a loss inside counts once
      out.Set("alias", out["x"]);
      return out;
    };
    const BundleFn outer = [&](Tape& tape, const Bundle& in) { return tape.Recompute(in, &inner); };
    Tape tape(context_, weights_);
    const Var x = tape.Input(Value({1, 3}));
    const Var other = tape.Input(Value({7, 7}));
    const Bundle out = tape.Recompute({{{"x", x}, {"other", other}}, {}}, &outer);
    EXPECT_EQ(out["other"].id().index, other.id().index);
    EXPECT_EQ(out["alias"].id().index, out["x"].id().index);
    EXPECT_EQ(tape.saved_bytes()["scale.x"], 0);
    Sum(tape, out["x"]);
    tape.Backward({}, when);
    if (when == WeightGradients::kDeferred) tape.RunDeferred();
    EXPECT_EQ(decisions, 1);
    EXPECT_EQ(Numbers(tape.LeafGradient(x.id())), (std::vector<double>{4, 10}));
    EXPECT_EQ(Numbers(w_.gradient), (std::vector<double>{2, 6}));
    ExpectNothingKept(tape);
  }
}

TEST_F(TapeTest, BackwardInParts) {
  Tape tape(context_, weights_);
  const Var x = tape.Input(Value({1, 3}));
  const Var y = Scale(tape, x);
  const int mark = tape.Mark();
  const Var z = Scale(tape, y);
  const Tape::Seed seed{z.id(), Value({1, 1})};
  tape.Backward({&seed, 1}, WeightGradients::kNow, mark);
  EXPECT_FALSE(tape.LeafGradient(x.id()).defined());
  tape.Backward();
  EXPECT_EQ(Numbers(tape.LeafGradient(x.id())), (std::vector<double>{4, 25}));
}

TEST_F(TapeTest, ForwardOnlyKeepsNothing) {
  Tape tape(context_, weights_, Tape::Mode::kForwardOnly);
  (void)Scale(tape, tape.Input(Value({1, 3})));
  ExpectNothingKept(tape);
  EXPECT_EQ(tape.Mark(), 0);
}

}  // namespace
}  // namespace moebius
