// How long pipeline stages wait: what the simulator predicts beside what four stages, which are
// threads that sleep where a model would compute, measure. Exit code 1 if a schedule is more than 5
// points off.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/weight_images.h"
#include "parallel/pipeline/executor.h"
#include "parallel/pipeline/simulator.h"
#include "parallel/thread_communicator.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr int kNumStages = 4;
constexpr double kTolerance = 0.05;

// A model whose forward, input gradients and weight gradients take one time each.
class SleepingModel final : public PipelineModel {
 public:
  SleepingModel(const PipelineSpec& spec, int stage, Seconds time)
      : spec_(spec), stage_(stage), time_(time) {}

  std::vector<ValueSpec> Boundary(int, int) const override {
    return {{"hidden", DType::kF32, {1}}};
  }

  Bundle Forward(Tape& tape, int chunk, int, Bundle in) override {
    const int virtual_stage = VirtualStageOf(spec_, {stage_, chunk});
    Context& context = tape.context();
    const Var x =
        virtual_stage > 0 ? in["hidden"] : tape.Input(context.Zeros(DType::kF32, {1}, "batch"));
    Compute();
    const Var y = tape.Record(context.Zeros(DType::kF32, {1}, "hidden"),
                              [this, x = x.id()](Tape& tape, const Tensor&) {
                                Compute();
                                *tape.Gradient(x).tensor.data<float>() = 0;
                                tape.WeightGradient({}, [this](Tape&) { Compute(); });
                              });
    if (virtual_stage == spec_.num_virtual_stages() - 1) {
      tape.RecordLoss([y = y.id()](Tape& tape) { *tape.Gradient(y).tensor.data<float>() = 0; });
      return {};
    }
    in.Set("hidden", y);
    return in;
  }

  // Of the time from the first computation to the last, the part without work.
  double bubble() const { return 1 - work_ / Seconds(last_ - *first_); }

 private:
  void Compute() {
    const Clock::time_point start = Clock::now();
    std::this_thread::sleep_for(time_);
    last_ = Clock::now();
    if (!first_) first_ = start;
    work_ += last_ - start;
  }

  const PipelineSpec spec_;
  const int stage_;
  const Seconds time_;
  std::optional<Clock::time_point> first_;
  Clock::time_point last_;
  Seconds work_{0};
};

// The largest over the stages, of plans that sleep `time` for each third of a stage's micro-batch.
double MeasuredBubble(const PipelinePlan& plan, Seconds time) {
  std::vector<double> bubbles(kNumStages);
  RunOnThreads(kNumStages, [&](Communicator& world) {
    Context context;
    kernels::ResidentWeights weights(context);
    SleepingModel model(plan.spec, world.rank(), time / plan.spec.num_chunks);
    world.Barrier().Wait();
    PipelineExecutor({model, world, context, weights}).Run(plan);
    bubbles[world.rank()] = model.bubble();
  });
  return *std::ranges::max_element(bubbles);
}

double PredictedBubble(const Simulation& simulation) {
  double largest = 0;
  for (const StageSimulation& stage : simulation.stages) {
    const double span = stage.timeline.back().end - stage.timeline.front().start;
    largest = std::max(largest, stage.bubble / span);
  }
  return largest;
}

int Main(double milliseconds) {
  bool all_close = true;
  std::printf(
      "| schedule | chunks | micro-batches | predicted bubble | measured | stashes |\n"
      "| --- | --- | --- | --- | --- | --- |\n");
  for (const auto& [kind, v] : {std::pair(ScheduleKind::kGPipe, 1),
                                {ScheduleKind::k1F1B, 1},
                                {ScheduleKind::kInterleaved1F1B, 2},
                                {ScheduleKind::kZeroBubbleH1, 1},
                                {ScheduleKind::kZeroBubbleV, 2}}) {
    for (const int m : {8, 16}) {
      const PipelinePlan plan = *MakePlan({kind, kNumStages, v, m});
      const Simulation simulation = *Simulate(plan);
      const double predicted = PredictedBubble(simulation);
      const double measured = MeasuredBubble(plan, Seconds(milliseconds / 1000));
      all_close = all_close && std::abs(measured - predicted) <= kTolerance;
      std::printf("| %s | %d | %d | %.1f%% | %.1f%% | %.2f |\n", NameOf(kind), v, m,
                  100 * predicted, 100 * measured, simulation.stages[0].peak_stashes / v);
    }
  }
  return all_close ? 0 : 1;
}

}  // namespace
}  // namespace moebius

// pipeline [MILLISECONDS]: of a stage's forward; input and weight gradients take as long.
int main(int argc, char** argv) { return moebius::Main(argc > 1 ? std::atof(argv[1]) : 60); }
