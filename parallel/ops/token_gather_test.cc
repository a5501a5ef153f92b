#include "parallel/ops/token_gather.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/ops/routing.h"
#include "parallel/dry_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/adversarial_routing.h"
#include "tests/testing/gradient_check.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius {
namespace {

constexpr int kNumExperts = 6;
constexpr int64_t kWidth = 2;
constexpr int kTokens[] = {4, 0, 5, 2};  // of each rank

struct Layout {
  std::vector<int> owner;
  int num_ranks;
  int copies = 1;
};

const Layout kLayouts[] = {
    {{0, 0, 0, 0, 0, 0}, 1},    {{0, 0, 0, 1, 1, 1}, 2},
    {{2, 0, 2, 0, 2, 0}, 3},  // rank 1 has no expert
    {{3, 1, 2, 0, 0, 3}, 4},    {{0, 0, 0, 0, 0, 0}, 2, 2},
    {{1, 0, 1, 1, 0, 0}, 4, 2},
};

// Expert j squares its rows and multiplies by this: over its copies they add up to j + 1.
double Factor(int expert, int copy, int copies) {
  return (expert + 1) * (copies == 1 ? 1 : 0.25 + 0.5 * copy);
}

// One rank's tokens, with what they look for.
struct Problem {
  test::RoutingCase routing;
  Tensor x, weights, dy;  // [T, kWidth], [P], [T, kWidth]
};

Problem MakeProblem(int routing, int rank, DType dtype, Context& context) {
  Problem p{test::AdversarialRoutings(kTokens[rank], kNumExperts)[routing], {}, {}, {}};
  const auto T = std::ssize(p.routing.experts_of_token);
  const auto P = std::ssize(p.routing.experts());
  const auto random = [&](DType dtype, const Shape& shape, const char* name) {
    return test::RandomTensor(context, dtype, shape, absl::StrCat(name, rank));
  };
  p.x = random(dtype, {T, kWidth}, "x");
  p.weights = random(dtype == DType::kF64 ? dtype : DType::kF32, {P}, "weights");
  p.dy = random(dtype, {T, kWidth}, "dy");
  return p;
}

// rows [R, kWidth] through this rank's experts.
Var Experts(Tape& tape, const Var& rows, const Tensor& expert_offsets,
            const std::vector<double>& factors) {
  std::vector<double> y = test::ToDoubles(rows.value()), slopes = y;
  for (size_t j = 0; j < factors.size(); ++j) {
    const int32_t* offset = expert_offsets.data<int32_t>() + j;
    for (int64_t i = offset[0] * kWidth; i < offset[1] * kWidth; ++i) {
      slopes[i] = 2 * factors[j] * y[i];
      y[i] *= factors[j] * y[i];
    }
  }
  const auto tensor = [&](const std::vector<double>& values) {
    return test::FromValues(tape.context(), rows.dtype(), rows.shape(), values);
  };
  const Saved saved = tape.Save(tensor(slopes), "slopes");
  return tape.Record(tensor(y), [=, rows = rows.id()](Tape& tape, const Tensor& dy) {
    std::vector<double> dx = test::ToDoubles(dy);
    const std::vector<double> slopes = test::ToDoubles(tape.Load(saved));
    for (size_t i = 0; i < dx.size(); ++i) dx[i] *= slopes[i];
    const Tensor values = test::FromValues(tape.context(), dy.dtype(), dy.shape(), dx);
    std::copy_n(values.raw(), values.bytes(), tape.Gradient(rows).tensor.raw());
  });
}

// What a rank says of its tokens: outputs, and gradients for its dy.
struct Answer {
  Tensor y, dx, dweights;
};

Answer Solve(const Problem& p, const Layout& layout, Communicator& group, Context& context) {
  const auto int32 = [&](const std::vector<double>& values) {
    return test::FromValues(context, DType::kI32, {std::ssize(values)}, values);
  };
  const RoutingPlan plan = kernels::BuildPlan(int32(p.routing.token_offsets()),
                                              int32(p.routing.experts()), kNumExperts, context);
  const TokenGather gather = MakeTokenGather(plan, layout.owner, layout.copies, group, context);
  std::vector<double> factors;
  for (int j = 0; j < kNumExperts; ++j) {
    if (layout.owner[j] != group.rank() / layout.copies) continue;
    factors.push_back(Factor(j, group.rank() % layout.copies, layout.copies));
  }

  test::ValueWeights no_parameters;
  Tape tape(context, no_parameters);
  const Var x = tape.Input(p.x), weights = tape.Input(p.weights);
  const Var rows =
      ops::Permute(tape, GatherTokens(tape, x, gather, &group).Wait(tape), gather.plan);
  const Var local = Experts(tape, rows, gather.plan.expert_offsets, factors);
  const Var parts =
      ops::Combine(tape, local, GatherWeights(tape, weights, gather, &group), gather.plan);
  const Var y = ScatterTokens(tape, parts, plan.num_tokens(), &group).Wait(tape);
  EXPECT_EQ(group.size() == 1, y.id().index == parts.id().index) << "one rank scatters nothing";
  const Tape::Seed seed = {y.id(), test::Convert(context, p.dy, p.dy.dtype())};
  tape.Backward({&seed, 1});
  for (const auto& [name, bytes] : tape.saved_bytes()) EXPECT_EQ(bytes, 0) << name;
  return {y.value(), tape.LeafGradient(x.id()), tape.LeafGradient(weights.id())};
}

// The same, token by token, in double.
Answer Reference(const Problem& p, Context& context) {
  const auto x = test::ToDoubles(p.x), w = test::ToDoubles(p.weights), dy = test::ToDoubles(p.dy);
  std::vector<double> y(x.size()), dx(x.size()), dw;
  for (size_t t = 0; t < p.routing.experts_of_token.size(); ++t) {
    for (const int expert : p.routing.experts_of_token[t]) {
      const double weight = w[dw.size()], factor = expert + 1;
      dw.push_back(0);
      for (size_t i = t * kWidth; i < (t + 1) * kWidth; ++i) {
        y[i] += weight * factor * x[i] * x[i];
        dx[i] += weight * factor * 2 * x[i] * dy[i];
        dw.back() += factor * x[i] * x[i] * dy[i];
      }
    }
  }
  const auto tensor = [&](const Shape& shape, const std::vector<double>& values) {
    return test::FromValues(context, DType::kF64, shape, values);
  };
  return {tensor(p.x.shape(), y), tensor(p.x.shape(), dx), tensor(p.weights.shape(), dw)};
}

// Ranks with unequal numbers of tokens, with none; experts with every kind of load.
TEST(TokenGather, GivesWhatOneRankGives) {
  for (const Layout& layout : kLayouts) {
    RunOnThreads(layout.num_ranks, [&](Communicator& world) {
      Context context;
      for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16}) {
        for (int routing = 0; routing < 7; ++routing) {
          const Problem p = MakeProblem(routing, world.rank(), dtype, context);
          SCOPED_TRACE(absl::StrCat("rank ", world.rank(), " of ", world.size(), ", ",
                                    p.routing.name, ", ", NameOf(dtype)));
          const Answer actual = Solve(p, layout, world, context);
          const Answer expected = Reference(p, context);
          test::ExpectClose(actual.y, expected.y, kNumExperts, 6);
          test::ExpectClose(actual.dx, expected.dx, kNumExperts, 6);
          test::ExpectClose(test::Convert(context, actual.dweights, dtype), expected.dweights,
                            kWidth, 6);
        }
      }
    });
  }
}

// Calls fn(element, gradient) for every element of every rank, one after the other, on all ranks at
// once: with nulls where it is another rank's.
template <class Fn>
void ForElements(const Tensor& x, const Tensor& dx, Communicator& world, const Fn& fn) {
  for (int rank = 0; rank < world.size(); ++rank) {
    const bool is_mine = world.rank() == rank;
    int64_t size = is_mine ? x.size() : 0;
    world.AllReduceMax(std::span(&size, 1)).Wait();
    for (int64_t i = 0; i < size; ++i) {
      fn(is_mine ? x.data<double>() + i : nullptr, is_mine ? dx.data<double>() + i : nullptr);
    }
  }
}

// Of the sum of <dy, y> over all ranks.
TEST(TokenGather, GradientsMatchDifferences) {
  constexpr double kStep = 1e-5;
  for (const Layout& layout : {kLayouts[2], kLayouts[5]}) {
    RunOnThreads(layout.num_ranks, [&](Communicator& world) {
      Context context;
      const Problem p = MakeProblem(5, world.rank(), DType::kF64, context);
      const Answer answer = Solve(p, layout, world, context);
      const auto loss = [&] {
        const Tensor y = Solve(p, layout, world, context).y;
        double sum = 0;
        for (int64_t i = 0; i < y.size(); ++i) sum += y.data<double>()[i] * p.dy.data<double>()[i];
        world.AllReduce(std::span(&sum, 1)).Wait();
        return sum;
      };
      const auto check = [&](double* element, const double* gradient) {
        const double kept = element ? *element : 0;
        const auto at = [&](double value) {
          if (element) *element = value;
          return loss();
        };
        const double numeric = (at(kept + kStep) - at(kept - kStep)) / (2 * kStep);
        at(kept);
        if (gradient) {
          EXPECT_NEAR(*gradient, numeric, 1e-7);
        }
      };
      ForElements(p.x, answer.dx, world, check);
      ForElements(p.weights, answer.dweights, world, check);
    });
  }
}

TEST(TokenGather, MetaNeedsNoOtherRank) {
  Context context({.device = kMeta});
  DryCommunicator world(0, 2, {.messages = context.arena()});
  const auto empty = [&](DType dtype, const Shape& shape) {
    return context.Empty(dtype, shape, "test");
  };
  const RoutingPlan plan = {empty(DType::kI32, {6}), empty(DType::kI32, {10}),
                            empty(DType::kI32, {5}), empty(DType::kI32, {10})};
  for (const int copies : {1, 2}) {
    const std::vector<int> owner = copies == 1 ? std::vector{0, 0, 1, 1} : std::vector(4, 0);
    const TokenGather gather = MakeTokenGather(plan, owner, copies, world, context);
    EXPECT_EQ(gather.plan.num_experts(), copies == 1 ? 2 : 4);
    test::ValueWeights weights;
    Tape tape(context, weights);
    const Var x = tape.Input(empty(DType::kBF16, {5, 8}));
    const Var w = tape.Input(empty(DType::kF32, {10}));
    const Var all = GatherTokens(tape, x, gather, &world).Wait(tape);
    EXPECT_EQ(all.shape(), (Shape{10, 8}));
    const Var rows = ops::Permute(tape, all, gather.plan);
    EXPECT_EQ(rows.shape(), (Shape{10 * copies, 8}));
    const Var mine = GatherWeights(tape, w, gather, &world);
    const Var y =
        ScatterTokens(tape, ops::Combine(tape, rows, mine, gather.plan), 5, &world).Wait(tape);
    EXPECT_EQ(y.shape(), x.shape());
    const Tape::Seed seed = {y.id(), empty(DType::kBF16, {5, 8})};
    tape.Backward({&seed, 1});
    EXPECT_EQ(tape.LeafGradient(x.id()).shape(), x.shape());
    EXPECT_EQ(tape.LeafGradient(w.id()).shape(), w.shape());
  }
}

}  // namespace
}  // namespace moebius
