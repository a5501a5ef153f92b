// The routed experts of a layer spread over the ranks of this job, forward and backward: what the
// travelling of rows takes, and what it would save to cut them into chunks of experts, so that the
// rows of one chunk travel while another is computed. Beside it dispatch by all-gather.
//   mpirun -np 2 exchange   or   exchange, two ranks that are threads; one core a rank
#include "parallel/ops/exchange.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "core/base/random.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/routing.h"
#include "kernels/ops/swiglu.h"
#include "kernels/weight_images.h"
#include "parallel/mpi_communicator.h"
#include "parallel/ops/token_gather.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

constexpr int64_t kNumExperts = 8;  // of which every token has two
constexpr int kRounds = 25;

struct Sizes {
  DType dtype;
  int64_t T, D, F;  // tokens of a rank, model width, expert hidden width
};
constexpr Sizes kSizes[] = {{DType::kF32, 1024, 128, 128},  {DType::kF32, 1024, 256, 512},
                            {DType::kF32, 2048, 512, 1024}, {DType::kBF16, 1024, 128, 128},
                            {DType::kBF16, 1024, 256, 512}, {DType::kBF16, 2048, 512, 1024}};

Tensor Normal(DType dtype, const Shape& shape, const char* name, Context& context) {
  const Tensor x = context.Empty(DType::kF32, shape, name);
  const RandomStream stream(1, name);
  for (int64_t i = 0; i < x.size(); ++i) {
    x.data<float>()[i] = 0.05f * static_cast<float>(stream.Normal(i));
  }
  const Tensor y = context.Empty(dtype, shape, name);
  kernels::Cast({.x = x, .y = y}, context);
  return y;
}

// Some of this rank's pairs, and how they travel.
struct Part {
  RoutingPlan plan;
  Exchange exchange;
  Tensor weights;  // [P]
};

class Layer {
 public:
  Layer(const Sizes& sizes, Communicator& world)
      : sizes_(sizes), world_(world), owner_(EvenOwners(kNumExperts, world.size())) {
    const int64_t e = kNumExperts / world.size(), F = sizes.F, D = sizes.D;
    for (const Shape& shape : {Shape{e, F, D}, Shape{e, F, D}, Shape{e, D, F}}) {
      Parameter& parameter = parameters_.emplace_back();
      parameter.value = Normal(DType::kF32, shape, "weight", context_);
      parameter.gradient = context_.Empty(DType::kF32, shape, "gradient");
    }
    x_ = Normal(sizes.dtype, {sizes.T, D}, "x", context_);
    whole_ = {MakePart(0, 1)};
    gather_ = MakeTokenGather(whole_[0].plan, owner_, 1, world, context_);
    row_tokens_ = kernels::RowTokens(gather_.plan, context_);
  }

  // The pairs of one of `count` equal runs of each rank's experts.
  Part MakePart(int index, int count) {
    const int64_t e = kNumExperts / world_.size();
    std::vector<int32_t> offsets = {0}, experts;
    for (int64_t t = 0; t < sizes_.T; ++t) {
      const uint64_t token = world_.rank() * sizes_.T + t;
      const auto first = static_cast<int32_t>(draws_.Below(2 * token, kNumExperts));
      const auto step = 1 + static_cast<int32_t>(draws_.Below(2 * token + 1, kNumExperts - 1));
      for (const int32_t expert : {first, static_cast<int32_t>((first + step) % kNumExperts)}) {
        if (expert % e * count / e == index) experts.push_back(expert);
      }
      offsets.push_back(static_cast<int32_t>(experts.size()));
    }
    const auto tensor = [&](const std::vector<int32_t>& numbers) {
      const Tensor x = context_.Empty(DType::kI32, {std::ssize(numbers)}, "plan");
      std::ranges::copy(numbers, x.data<int32_t>());
      return x;
    };
    Part part;
    part.plan = kernels::BuildPlan(tensor(offsets), tensor(experts), kNumExperts, context_);
    part.exchange = MakeExchange(part.plan.expert_offsets, owner_, 1, world_, context_);
    part.weights = Normal(DType::kF32, {part.plan.num_pairs()}, "weights", context_);
    return part;
  }

  // The routed experts of x, with their rows on the way all at once; `computes`: or only there and
  // back.
  Var ByAllToAll(Tape& tape, const Var& x, const std::vector<Part>& parts, bool computes) {
    std::vector<RowsUnderWay> there, back;
    for (const Part& part : parts) {
      there.push_back(ToExperts(tape, ops::Permute(tape, x, part.plan), part.exchange, &world_));
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      Var rows = there[i].Wait(tape);
      if (computes) {
        const Tensor& offsets = parts[i].exchange.local_offsets;
        rows = ops::Down(tape, GateAndUp(tape, rows, {.offsets = offsets}), offsets, down());
      }
      back.push_back(FromExperts(tape, rows, parts[i].exchange, &world_));
    }
    std::optional<Var> sum;
    for (size_t i = 0; i < parts.size(); ++i) {
      const Var weights = tape.Input(parts[i].weights);
      const Var y = ops::Combine(tape, back[i].Wait(tape), weights, parts[i].plan);
      sum = sum ? ops::Add(tape, *sum, y) : y;
    }
    return *sum;
  }

  Var ByAllGather(Tape& tape, const Var& x) {
    const Var all = GatherTokens(tape, x, gather_, &world_).Wait(tape);
    const Var weights = GatherWeights(tape, tape.Input(whole_[0].weights), gather_, &world_);
    const ops::GatedRows hidden = GateAndUp(tape, all, {gather_.plan.expert_offsets, row_tokens_});
    const Var parts = ops::DownToTokens(tape, hidden, weights, gather_.plan, row_tokens_, down());
    return ScatterTokens(tape, parts, sizes_.T, &world_).Wait(tape);
  }

  // Milliseconds of forward and backward, on the slowest rank.
  double Time(const std::function<Var(Tape& tape, const Var& x)>& forward) {
    for (Parameter& parameter : parameters_) parameter.gradient_written = false;
    kernels::ResidentWeights weights(context_);
    Tape tape(context_, weights);
    const Var x = tape.Input(x_);
    const Tensor dy = Normal(sizes_.dtype, x_.shape(), "dy", context_);
    world_.Barrier().Wait();
    const auto start = std::chrono::steady_clock::now();
    const Tape::Seed seed = {forward(tape, x).id(), dy};
    tape.Backward({&seed, 1});
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    double slowest = took.count();
    world_.AllReduceMax(std::span(&slowest, 1)).Wait();
    return slowest;
  }

  const std::vector<Part>& whole() const { return whole_; }

 private:
  ops::GatedRows GateAndUp(Tape& tape, const Var& x, const ops::ProductRows& rows) {
    return ops::GateAndUp(tape, x, rows, &parameters_[0], &parameters_[1]);
  }
  Parameter* down() { return &parameters_[2]; }

  const Sizes sizes_;
  Communicator& world_;
  const RandomStream draws_{1, "routing"};
  const std::vector<int> owner_;
  Context context_;
  std::vector<Parameter> parameters_;
  Tensor x_;
  std::vector<Part> whole_;
  TokenGather gather_;
  Tensor row_tokens_;  // of its plan
};

void Measure(const Sizes& sizes, Communicator& world) {
  Layer layer(sizes, world);
  const std::vector<Part> halves = {layer.MakePart(0, 2), layer.MakePart(1, 2)};
  const std::vector<Part> quarters = {layer.MakePart(0, 4), layer.MakePart(1, 4),
                                      layer.MakePart(2, 4), layer.MakePart(3, 4)};
  const auto by_all_to_all = [&](const std::vector<Part>& parts, bool computes) {
    return [&layer, &parts, computes](Tape& tape, const Var& x) {
      return layer.ByAllToAll(tape, x, parts, computes);
    };
  };
  const std::function<Var(Tape&, const Var&)> ways[] = {
      by_all_to_all(layer.whole(), true), by_all_to_all(layer.whole(), false),
      by_all_to_all(halves, true), by_all_to_all(quarters, true),
      [&](Tape& tape, const Var& x) { return layer.ByAllGather(tape, x); }};
  std::vector<std::vector<double>> times(std::size(ways));
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < std::size(ways); ++i) times[i].push_back(layer.Time(ways[i]));
  }
  if (world.rank() > 0) return;
  std::printf("| %s | %lld | %lld | %lld |", NameOf(sizes.dtype), static_cast<long long>(sizes.T),
              static_cast<long long>(sizes.D), static_cast<long long>(sizes.F));
  for (auto& of_way : times) {
    std::ranges::sort(of_way);
    std::printf(" %.2f (%.2f) |", of_way[0], of_way[kRounds / 2]);
  }
  std::printf("\n");
  std::fflush(stdout);
}

void MeasureAll(Communicator& world) {
  CHECK(kNumExperts % (4 * world.size()) == 0) << "2 ranks: four chunks of experts on each";
  if (world.rank() == 0) {
    std::printf(
        "ms, best (median of %d)\n| dtype | T | D | F | one piece | without experts | 2 chunks | 4 "
        "chunks | all-gather |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        kRounds);
  }
  for (const Sizes& sizes : kSizes) Measure(sizes, world);
}

int Main() {
  if (NumMpiProcesses() == 0) {
    RunOnThreads(2, MeasureAll);
    return 0;
  }
  const auto board = std::filesystem::temp_directory_path() / "exchange_board";
  const auto world = MpiWorld::Start({.wait = {}, .board_directory = board.string()});
  CHECK(world.ok()) << world.status();
  MeasureAll((*world)->communicator());
  return 0;
}

}  // namespace
}  // namespace moebius

int main() { return moebius::Main(); }
