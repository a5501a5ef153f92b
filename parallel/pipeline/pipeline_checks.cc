#include "parallel/pipeline/pipeline_checks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/base/random.h"
#include "kernels/ops/linear.h"
#include "kernels/weight_images.h"

namespace moebius {
namespace {

constexpr int64_t kWidth = 5;
constexpr uint64_t kSeed = 7;

// Half the sum of squares, whose gradient is the value itself.
void SquaredLoss(Tape& tape, const Var& x) {
  const Saved saved_x = tape.Save(x.value(), "loss.x");
  tape.RecordLoss([=, x = x.id()](Tape& tape) {
    const GradientSlot dx = tape.Gradient(x);
    if (tape.context().device().is_meta()) return;
    const std::span<const double> from = tape.Load(saved_x).span<double>();
    const std::span<double> to = dx.tensor.span<double>();
    for (size_t i = 0; i < from.size(); ++i) to[i] = (dx.accumulate ? to[i] : 0) + from[i];
  });
}

std::vector<double> Numbers(const Tensor& x) {
  const auto numbers = x.span<double>();
  return {numbers.begin(), numbers.end()};
}

}  // namespace

Chain::Chain(Context& context, int num_virtual_stages, const std::vector<int>& held, int scale)
    : context_(context), num_virtual_stages_(num_virtual_stages), held_(held), scale_(scale) {
  for (const int virtual_stage : held_) {
    for (const int i : {2 * virtual_stage, 2 * virtual_stage + 1}) {
      auto w = std::make_unique<Parameter>();
      w->name = absl::StrCat("w", i);
      w->value = Random(w->name, {kWidth, kWidth});
      w->gradient = context.Zeros(DType::kF64, {kWidth, kWidth}, "gradient");
      weights_[i] = std::move(w);
    }
  }
}

int64_t Chain::NumTokens(int micro_batch) const {
  return micro_batch % 4 == 2 ? 0 : scale_ * (3 + micro_batch % 3);
}

Tensor Chain::Random(const std::string& name, const Shape& shape) const {
  const Tensor x = context_.Empty(DType::kF64, shape, "chain");
  if (context_.device().is_meta()) return x;
  const RandomStream stream(kSeed, name);
  for (int64_t i = 0; i < x.size(); ++i) x.data<double>()[i] = stream.Uniform(i) - 0.5;
  return x;
}

std::vector<ValueSpec> Chain::Boundary(int, int micro_batch) const {
  const int64_t T = NumTokens(micro_batch);
  return {{"hidden", DType::kF64, {T, kWidth}},
          {"skip", DType::kF64, {T, kWidth}},
          {"unread", DType::kBF16, {T}}};
}

Bundle Chain::Forward(Tape& tape, int chunk, int micro_batch, Bundle in) {
  ++num_forwards_;
  const int virtual_stage = held_[chunk];
  if (virtual_stage == 0) in = First(tape, micro_batch);
  for (const int i : {2 * virtual_stage, 2 * virtual_stage + 1}) {
    in.Set("hidden", ops::Linear(tape, in["hidden"], weights_[i].get()));
  }
  if (virtual_stage < num_virtual_stages_ - 1) return in;
  SquaredLoss(tape, in["hidden"]);
  SquaredLoss(tape, in["skip"]);
  if (context_.device().is_meta()) return {};
  for (const double x : in["hidden"].value().span<double>()) loss_ += x * x / 2;
  return {};
}

Bundle Chain::First(Tape& tape, int micro_batch) {
  const int64_t T = NumTokens(micro_batch);
  const Var x = tape.Input(Random(absl::StrCat("batch ", micro_batch), {T, kWidth}));
  Bundle bundle;
  bundle.Set("hidden", x);
  bundle.Set("skip", ops::Linear(tape, x, weights_[0].get()));
  bundle.Set("unread", tape.Input(context_.Zeros(DType::kBF16, {T}, "unread")));
  return bundle;
}

std::vector<int> HeldBy(const PipelineSpec& spec, int stage) {
  std::vector<int> held;
  for (int chunk = 0; chunk < spec.num_chunks; ++chunk) {
    held.push_back(VirtualStageOf(spec, {stage, chunk}));
  }
  return held;
}

void RunOnOneRank(Chain& chain, int num_virtual_stages, int num_micro_batches, Context& context,
                  WeightSource& weights) {
  for (int i = 0; i < num_micro_batches; ++i) {
    Tape tape(context, weights);
    Bundle bundle;
    for (int chunk = 0; chunk < num_virtual_stages; ++chunk) {
      bundle = chain.Forward(tape, chunk, i, std::move(bundle));
    }
    tape.Backward();
  }
}

void CheckGradients(const PipelineSpec& spec, Communicator& stages, int scale) {
  SCOPED_TRACE(absl::StrCat(NameOf(spec.schedule), ", p ", spec.num_stages, ", v ", spec.num_chunks,
                            ", m ", spec.num_micro_batches, ", stage ", stages.rank()));
  const int num_virtual_stages = spec.num_virtual_stages();
  std::vector<int> all(num_virtual_stages);
  std::iota(all.begin(), all.end(), 0);
  Context context;
  kernels::ResidentWeights weights(context);
  Chain whole(context, num_virtual_stages, all, scale);
  RunOnOneRank(whole, num_virtual_stages, spec.num_micro_batches, context, weights);

  const PipelinePlan plan = *MakePlan(spec);
  const std::vector<int> held = HeldBy(spec, stages.rank());
  for (int step = 1; step <= 2; ++step) {
    Chain chain(context, num_virtual_stages, held, scale);
    PipelineExecutor({chain, stages, context, weights}).Run(plan);
    EXPECT_EQ(std::ssize(chain.weights()), 2 * spec.num_chunks);
    for (const auto& [i, w] : chain.weights()) {
      EXPECT_EQ(Numbers(w->gradient), Numbers(whole.weights().at(i)->gradient)) << w->name;
    }
    const bool is_last = std::ranges::count(held, num_virtual_stages - 1) > 0;
    EXPECT_EQ(chain.loss(), is_last ? whole.loss() : 0);
    EXPECT_GT(whole.loss(), 0);
  }
}

}  // namespace moebius
