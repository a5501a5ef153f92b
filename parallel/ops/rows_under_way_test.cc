#include "parallel/ops/rows_under_way.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "parallel/thread_communicator.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"

namespace moebius {
namespace {

using Log = std::vector<std::string>;

// Doubles what it moves, and says so.
class LoggedMove {
 public:
  LoggedMove(const char* name, const char* reversed, Log* log)
      : name_(name), reversed_(reversed), log_(log) {}
  LoggedMove Reversed() const { return {reversed_, name_, log_}; }

  InFlight Start(const Tensor& x, Communicator&, Context& context) const {
    log_->push_back(std::string(name_) + " starts");
    std::vector<double> doubled = test::ToDoubles(x);
    for (double& element : doubled) element *= 2;
    return {{}, x, test::FromValues(context, x.dtype(), x.shape(), doubled)};
  }
  Tensor Finish(InFlight rows, const Tensor& y, Context& context) const {
    log_->push_back(std::string(name_) + " ends");
    if (!y.defined()) return rows.received;
    kernels::Cast({.x = rows.received, .y = y}, context);
    return y;
  }

 private:
  const char *name_, *reversed_;
  Log* log_;
};

int64_t Bytes(const LoggedMove&) { return 8; }

Var LoggedCopy(Tape& tape, const Var& x, Log* log) {
  log->push_back("forward");
  return tape.Record(x.value(), [=, x = x.id()](Tape& tape, const Tensor& dy) {
    log->push_back("backward");
    const GradientSlot dx = tape.Gradient(x);
    kernels::Cast({.x = dy, .y = dx.tensor, .accumulate = dx.accumulate}, tape.context());
  });
}

class RowsUnderWayTest : public testing::Test {
 protected:
  // Runs fn(tape, x, world) on one rank and backward; returns the gradient of x for ones.
  template <class Fn>
  std::vector<double> GradientOf(const Fn& fn) {
    std::vector<double> gradient;
    RunOnThreads(1, [&](Communicator& world) {
      test::ValueWeights weights;
      Tape tape(context_, weights);
      const Var x = tape.Input(Values({3, 5}));
      const Var y = fn(tape, x, &world);
      y_ = test::ToDoubles(y.value());
      const Tape::Seed seed = {y.id(), Values({1, 1})};
      tape.Backward({&seed, 1});
      for (const auto& [name, bytes] : tape.saved_bytes()) EXPECT_EQ(bytes, 0) << name;
      gradient = test::ToDoubles(tape.LeafGradient(x.id()));
    });
    return gradient;
  }
  Tensor Values(const std::vector<double>& values) {
    return test::FromValues(context_, DType::kF64, {2}, values);
  }

  Context context_;
  Log log_;
  std::vector<double> y_;
};

// What is recorded in between is computed while rows and gradients are under way.
TEST_F(RowsUnderWayTest, TheRestGoesOnMeanwhile) {
  const auto gradient = GradientOf([&](Tape& tape, const Var& x, Communicator* world) {
    RowsUnderWay rows = StartMove(tape, x, LoggedMove("there", "back", &log_), world);
    const Var copy = LoggedCopy(tape, x, &log_);
    const Var moved = rows.Wait(tape);
    const Tensor sum = Values({0, 0});
    kernels::Add(copy.value(), moved.value(), sum, context_);
    return tape.Record(sum, [copy = copy.id(), moved = moved.id()](Tape& tape, const Tensor& dy) {
      for (const VarId x : {copy, moved}) {
        kernels::Cast({.x = dy, .y = tape.Gradient(x).tensor}, tape.context());
      }
    });
  });
  EXPECT_EQ(log_,
            (Log{"there starts", "forward", "there ends", "back starts", "backward", "back ends"}));
  EXPECT_EQ(y_, (std::vector<double>{9, 15}));
  EXPECT_EQ(gradient, (std::vector<double>{3, 3})) << "the copy's first, then those that came back";
}

TEST_F(RowsUnderWayTest, ThenHappensOnArrival) {
  const auto gradient = GradientOf([&](Tape& tape, const Var& x, Communicator* world) {
    RowsUnderWay rows =
        StartMove(tape, x, LoggedMove("there", "back", &log_), world)
            .Then([&](Tape& tape, const Var& y) { return LoggedCopy(tape, y, &log_); });
    log_.emplace_back("meanwhile");
    return rows.Wait(tape);
  });
  EXPECT_EQ(log_, (Log{"there starts", "meanwhile", "there ends", "forward", "backward",
                       "back starts", "back ends"}));
  EXPECT_EQ(y_, (std::vector<double>{6, 10}));
  EXPECT_EQ(gradient, (std::vector<double>{2, 2}));
}

TEST_F(RowsUnderWayTest, ARecomputedOneTravelsAgain) {
  Communicator* group = nullptr;
  const BundleFn twice = [&](Tape& tape, const Bundle& in) {
    RowsUnderWay rows = StartMove(tape, in["x"], LoggedMove("there", "back", &log_), group);
    return Bundle{{{"x", rows.Wait(tape)}}, {}};
  };
  const auto gradient = GradientOf([&](Tape& tape, const Var& x, Communicator* world) {
    group = world;
    return tape.Recompute({{{"x", x}}, {}}, &twice)["x"];
  });
  EXPECT_EQ(log_, (Log{"there starts", "there ends", "there starts", "there ends", "back starts",
                       "back ends"}));
  EXPECT_EQ(gradient, (std::vector<double>{2, 2}));
}

}  // namespace
}  // namespace moebius
