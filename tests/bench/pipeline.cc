// How long pipeline stages wait: what the simulator predicts beside what stages measure that are
// threads. First four that sleep where a model would compute; then two, each on a core of its own,
// that compute products, with the times of the same run in the simulator. Exit code 1 if a schedule
// is more than 5 points off, or 10 where stages compute.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/linear.h"
#include "kernels/weight_images.h"
#include "parallel/pipeline/executor.h"
#include "parallel/pipeline/simulator.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

enum Part { kForward, kInputGradients, kWeightGradients };

// A model whose forward, input gradients and weight gradients are one piece of work each.
class TimedModel final : public PipelineModel {
 public:
  TimedModel(const PipelineSpec& spec, int stage, std::function<void(Part)> work)
      : spec_(spec), stage_(stage), work_(std::move(work)), times_(spec.num_chunks) {}

  std::vector<ValueSpec> Boundary(int, int) const override {
    return {{"hidden", DType::kF32, {1}}};
  }

  Bundle Forward(Tape& tape, int chunk, int, Bundle in) override {
    const int virtual_stage = VirtualStageOf(spec_, {stage_, chunk});
    Context& context = tape.context();
    const Var x =
        virtual_stage > 0 ? in["hidden"] : tape.Input(context.Zeros(DType::kF32, {1}, "batch"));
    Work(kForward, chunk);
    const Var y =
        tape.Record(context.Zeros(DType::kF32, {1}, "hidden"),
                    [this, chunk, x = x.id()](Tape& tape, const Tensor&) {
                      Work(kInputGradients, chunk);
                      *tape.Gradient(x).tensor.data<float>() = 0;
                      tape.WeightGradient({}, [=, this](Tape&) { Work(kWeightGradients, chunk); });
                    });
    if (virtual_stage == spec_.num_virtual_stages() - 1) {
      tape.RecordLoss([y = y.id()](Tape& tape) { *tape.Gradient(y).tensor.data<float>() = 0; });
      return {};
    }
    in.Set("hidden", y);
    return in;
  }

  // Of the time from the first piece of work to the last, the part without.
  double bubble() const { return 1 - total_ / Seconds(last_ - *first_); }

  // Means over the micro-batches, in seconds.
  ChunkTimes TimesOf(int chunk) const {
    const auto mean = [&](Part part) {
      return times_[chunk][part].count() / spec_.num_micro_batches;
    };
    return {mean(kForward), mean(kInputGradients), mean(kWeightGradients)};
  }

 private:
  void Work(Part part, int chunk) {
    const Clock::time_point start = Clock::now();
    work_(part);
    last_ = Clock::now();
    if (!first_) first_ = start;
    times_[chunk][part] += last_ - start;
    total_ += last_ - start;
  }

  const PipelineSpec spec_;
  const int stage_;
  const std::function<void(Part)> work_;
  std::vector<std::array<Seconds, 3>> times_;  // by chunk
  std::optional<Clock::time_point> first_;
  Clock::time_point last_;
  Seconds total_{0};
};

struct Measured {
  double bubble = 0;              // the largest over the stages
  std::vector<ChunkTimes> times;  // by virtual stage
};

// `make_work(context)` gives a stage its work.
template <class MakeWork>
Measured Measure(const PipelinePlan& plan, bool pinned, const MakeWork& make_work) {
  const PipelineSpec& spec = plan.spec;
  std::vector<double> bubbles(spec.num_stages);
  Measured measured{.times = std::vector<ChunkTimes>(spec.num_virtual_stages())};
  RunOnThreads(spec.num_stages, [&](Communicator& world) {
    const int stage = world.rank();
    Context context({.cores = pinned ? std::vector<int>{stage} : std::vector<int>{}});
    kernels::ResidentWeights weights(context);
    TimedModel model(spec, stage, make_work(context));
    world.Barrier().Wait();
    PipelineExecutor({model, world, context, weights}).Run(plan);
    bubbles[stage] = model.bubble();
    for (int chunk = 0; chunk < spec.num_chunks; ++chunk) {
      measured.times[VirtualStageOf(spec, {stage, chunk})] = model.TimesOf(chunk);
    }
  });
  measured.bubble = *std::ranges::max_element(bubbles);
  return measured;
}

double PredictedBubble(const Simulation& simulation) {
  double largest = 0;
  for (const StageSimulation& stage : simulation.stages) {
    const double span = stage.timeline.back().end - stage.timeline.front().start;
    largest = std::max(largest, stage.bubble / span);
  }
  return largest;
}

// Calls fn for the plan of each schedule with m micro-batches.
template <class Fn>
void ForPlans(int num_stages, std::initializer_list<int> micro_batches, const Fn& fn) {
  for (const auto& [kind, v] : {std::pair(ScheduleKind::kGPipe, 1),
                                {ScheduleKind::k1F1B, 1},
                                {ScheduleKind::kInterleaved1F1B, 2},
                                {ScheduleKind::kZeroBubbleH1, 1},
                                {ScheduleKind::kZeroBubbleV, 2}}) {
    for (const int m : micro_batches) fn(*MakePlan({kind, num_stages, v, m}));
  }
}

bool StagesThatSleep(Seconds time) {
  constexpr double kTolerance = 0.05;
  bool all_close = true;
  std::printf(
      "| schedule | chunks | micro-batches | predicted bubble | measured | stashes |\n"
      "| --- | --- | --- | --- | --- | --- |\n");
  ForPlans(/*num_stages=*/4, {8, 16}, [&](const PipelinePlan& plan) {
    const auto& [kind, p, v, m] = plan.spec;
    const Simulation simulation = *Simulate(plan);
    const double predicted = PredictedBubble(simulation);
    const Seconds of_chunk = time / v;
    const Measured measured = Measure(plan, /*pinned=*/false, [&](Context&) {
      return [=](Part) { std::this_thread::sleep_for(of_chunk); };
    });
    all_close = all_close && std::abs(measured.bubble - predicted) <= kTolerance;
    std::printf("| %s | %d | %d | %.1f%% | %.1f%% | %.2f |\n", NameOf(kind), v, m, 100 * predicted,
                100 * measured.bubble, simulation.stages[0].peak_stashes / v);
  });
  return all_close;
}

// A layer's products: tokens of a micro-batch x a square matrix.
class Products {
 public:
  Products(int repeats, Context& context)
      : repeats_(repeats),
        context_(&context),
        x_(context.Zeros(DType::kF32, {kTokens, kWidth}, "x")),
        y_(context.Zeros(DType::kF32, {kTokens, kWidth}, "y")),
        dw_(context.Zeros(DType::kF32, {kWidth, kWidth}, "dw")),
        packed_(Image(WeightFormat::kPacked)),
        transposed_(Image(WeightFormat::kPackedTransposed)) {}

  void operator()(Part part) const {
    for (int i = 0; i < repeats_; ++i) {
      switch (part) {
        case kForward:
          kernels::Linear({.x = x_, .w = packed_, .y = y_}, *context_);
          break;
        case kInputGradients:
          kernels::LinearInputGradient({.dy = y_, .w = transposed_, .dx = x_}, *context_);
          break;
        case kWeightGradients:
          kernels::LinearWeightGradient({.dy = y_, .x = x_, .dw = dw_}, *context_);
      }
    }
  }

 private:
  static constexpr int64_t kTokens = 512, kWidth = 512;

  Tensor Image(WeightFormat format) const {
    return kernels::MakeWeightImage(dw_, format, DType::kF32, *context_);
  }

  int repeats_;
  Context* context_;
  Tensor x_, y_, dw_, packed_, transposed_;
};

bool StagesThatCompute() {
  constexpr double kTolerance = 0.1;
  constexpr int kRepeats = 8;  // of a whole stage; divides by the chunks
  bool all_close = true;
  std::printf(
      "\n| schedule | chunks | micro-batches | F, b, W of stage 0 in ms | predicted bubble | "
      "measured |\n"
      "| --- | --- | --- | --- | --- | --- |\n");
  ForPlans(/*num_stages=*/2, {4, 8}, [&](const PipelinePlan& plan) {
    const auto& [kind, p, v, m] = plan.spec;
    const Measured measured = Measure(plan, /*pinned=*/true, [&, v = v](Context& context) {
      return Products(kRepeats / v, context);
    });
    const double predicted = PredictedBubble(*Simulate(plan, {.times = measured.times}));
    all_close = all_close && std::abs(measured.bubble - predicted) <= kTolerance;
    ChunkTimes stage{0, 0, 0};
    for (int chunk = 0; chunk < v; ++chunk) {
      const ChunkTimes& times = measured.times[VirtualStageOf(plan.spec, {0, chunk})];
      stage.forward += 1e3 * times.forward;
      stage.input_gradients += 1e3 * times.input_gradients;
      stage.weight_gradients += 1e3 * times.weight_gradients;
    }
    std::printf("| %s | %d | %d | %.1f, %.1f, %.1f | %.1f%% | %.1f%% |\n", NameOf(kind), v, m,
                stage.forward, stage.input_gradients, stage.weight_gradients, 100 * predicted,
                100 * measured.bubble);
  });
  return all_close;
}

}  // namespace
}  // namespace moebius

// pipeline [MILLISECONDS]: of the forward of a stage that sleeps; input and weight gradients take
// as long.
int main(int argc, char** argv) {
  const moebius::Seconds time((argc > 1 ? std::atof(argv[1]) : 60) / 1000);
  const bool sleeping = moebius::StagesThatSleep(time);
  return moebius::StagesThatCompute() && sleeping ? 0 : 1;
}
