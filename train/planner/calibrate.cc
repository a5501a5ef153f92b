#include "train/planner/calibrate.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "configs/load.h"
#include "core/base/random.h"
#include "kernels/cpu/calibrate.h"
#include "kernels/routing.h"
#include "kernels/weight_images.h"
#include "parallel/thread_communicator.h"
#include "train/planner/link_timer.h"
#include "train/planner/op_timer.h"
#include "train/planner/random_batches.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;
using Samples = std::map<std::string, std::vector<OpSample>>;

// Small models that together have every op of a rank alone, from those where the fixed time of an
// op counts to those where its products do: a dense layer and one with experts.
constexpr char kModel[] = R"(
  run { dir: "calibration" }
  train { num_steps: 1000 global_batch_size: 4 micro_batch_size: 4 sequence_length: 256 }
  model {
    num_layers: 2 hidden_size: 128 num_heads: 2 ffn_hidden_size: 256 vocab_size: 4096
    moe {
      num_experts: 8 top_k: 2 expert_hidden_size: 128 num_shared_experts: 1 layers: 1
      balance { loss { scope: GLOBAL_BATCH } z_loss_weight: 0.001 }
    }
  }
  data { domains { name: "none" files: "none.txt" } }
)";

const std::vector<std::vector<std::string>>& Variants() {
  static const auto* const variants = new std::vector<std::vector<std::string>>{
      {"model.hidden_size=32", "model.num_heads=4", "model.ffn_hidden_size=64",
       "model.moe.expert_hidden_size=32", "model.vocab_size=257", "train.sequence_length=32"},
      {"model.hidden_size=64", "model.ffn_hidden_size=128", "model.moe.expert_hidden_size=64",
       "model.vocab_size=1024", "train.sequence_length=128", "model.qk_norm=WHOLE",
       "model.moe.router={score: SIGMOID}"},
      {"model.qk_norm=PER_HEAD"},
      {"model.hidden_size=256", "model.num_heads=4", "model.ffn_hidden_size=512",
       "model.moe.expert_hidden_size=512", "model.vocab_size=8192",
       "model.moe.router={score: SIGMOID}"},
  };
  return *variants;
}
constexpr size_t kNumSmall = 2;  // the first ones: for the references, which are slow

absl::StatusOr<RunConfig> ModelOf(const std::vector<std::string>& variant,
                                  PrecisionConfig::Compute compute) {
  std::vector<std::string> overrides = variant;
  overrides.push_back(absl::StrCat("precision.compute=", PrecisionConfig::Compute_Name(compute)));
  return ParseRunConfig("calibration", kModel, overrides);
}

// Steps of one model on this rank alone, the others doing the same.
absl::Status TimeOps(const RunConfig& config, int num_threads, Communicator& world,
                     Samples* samples) {
  constexpr int kFewestSteps = 3;
  constexpr std::chrono::duration<double> kShortest{0.5};
  OpTimer timer;
  const std::unique_ptr<Communicator> alone = world.Split({world.rank()}, "alone");
  ASSIGN_OR_RETURN(
      const std::unique_ptr<StepEngine> engine,
      StepEngine::Create(config, 1, *alone, {.num_threads = num_threads, .observer = &timer}));
  const std::vector<MicroBatch> batches = RandomBatches(*engine);
  engine->Step(1, batches);
  timer.Clear();
  world.Barrier().Wait();
  const auto start = Clock::now();
  for (int step = 2; step < 2 + kFewestSteps || Clock::now() - start < kShortest; ++step) {
    engine->Step(step, batches);
    timer.Stop();
  }
  world.Barrier().Wait();
  for (auto& [op, timed] : timer.Samples()) {
    auto& all = (*samples)[op];
    all.insert(all.end(), timed.begin(), timed.end());
  }
  return absl::OkStatus();
}

// What ranks do with rows before and behind an exchange, which one rank alone does not.
void TimeRowMoves(DType dtype, int num_threads, Samples* samples) {
  constexpr int64_t kExperts = 8, kTopK = 2;
  constexpr int kRounds = 5;
  OpTimer timer;
  Context context({.num_threads = num_threads, .observer = &timer});
  const DType precise = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  for (const auto& [T, D] : {std::pair<int64_t, int64_t>{128, 32}, {1024, 128}, {1024, 256}}) {
    const Tensor scores = context.Zeros(precise, {T, kExperts}, "scores");
    const RandomStream stream(1, "scores");
    for (int64_t i = 0; i < scores.size(); ++i) {
      precise == DType::kF64 ? scores.data<double>()[i] = stream.Normal(i)
                             : scores.data<float>()[i] = static_cast<float>(stream.Normal(i));
    }
    const RoutingPlan plan = kernels::TopK({.scores = scores, .k = kTopK}, context);
    const Tensor x = context.Zeros(dtype, {T, D}, "x");
    const Tensor rows = context.Zeros(dtype, {T * kTopK, D}, "rows");
    const Tensor weights = context.Zeros(precise, {T * kTopK}, "weights");
    for (int round = 0; round < kRounds; ++round) {
      kernels::Permute(x, plan, rows, context);
      kernels::Combine(rows, weights, plan, x, context);
      kernels::CombineGradient({x, rows, weights, plan, rows, true, weights, true}, context);
      kernels::PermuteGradient({rows, plan, x, true}, context);
      timer.Stop();
    }
  }
  for (auto& [op, timed] : timer.Samples()) {
    if (op == "permute" || op == "combine" || op.ends_with(".gradient")) {
      auto& all = (*samples)[op];
      all.insert(all.end(), timed.begin(), timed.end());
    }
  }
}

// The images of weights that ranks gather or update together; the updates of one rank alone write
// them on their way.
void TimePacking(DType dtype, int num_threads, Samples* samples) {
  if (dtype == DType::kF64) return;  // its products read the value
  constexpr int kRounds = 5;
  OpTimer timer;
  Context context({.num_threads = num_threads, .observer = &timer});
  for (const Shape& shape : {Shape{32, 32}, Shape{512, 256}, Shape{8, 512, 256}}) {
    const Tensor w = context.Zeros(DType::kF32, shape, "weight");
    for (const WeightFormat format : {WeightFormat::kPacked, WeightFormat::kPackedTransposed}) {
      const Tensor image = kernels::MakeWeightImage(w, format, dtype, context);
      for (int round = 0; round < kRounds; ++round) {
        kernels::PackWeight(w, format, image, context);
        timer.Stop();
      }
    }
  }
  for (auto& [op, timed] : timer.Samples()) (*samples)[op] = timed;
}

struct Measured {
  Samples samples;
  double peak_flops = 0;
  double bandwidth = 0;
  LinkRates link;
};

absl::Status Measure(PrecisionConfig::Compute compute, int num_threads, Communicator& world,
                     Measured* measured) {
  const size_t num_models = compute == PrecisionConfig::FP64 ? kNumSmall : Variants().size();
  for (size_t i = 0; i < num_models; ++i) {
    ASSIGN_OR_RETURN(const RunConfig config, ModelOf(Variants()[i], compute));
    RETURN_IF_ERROR(TimeOps(config, num_threads, world, &measured->samples));
  }
  const DType dtype = compute == PrecisionConfig::FP64   ? DType::kF64
                      : compute == PrecisionConfig::FP32 ? DType::kF32
                                                         : DType::kBF16;
  TimeRowMoves(dtype, num_threads, &measured->samples);
  TimePacking(dtype, num_threads, &measured->samples);
  Context context({.num_threads = num_threads});
  measured->peak_flops = cpu::PeakFlops(dtype, context);
  measured->bandwidth = cpu::TriadBandwidth(context);
  if (world.size() > 1) measured->link = MeasureLink(world);
  return absl::OkStatus();
}

OpConfig OpOf(const std::string& name, PrecisionConfig::Compute compute, const OpRates& rates) {
  OpConfig op;
  op.set_name(name);
  op.set_compute(compute);
  op.set_seconds(rates.per_group);
  op.set_seconds_per_flop(rates.per_flop);
  op.set_seconds_per_byte(rates.per_byte);
  return op;
}

// A share of a peak, from the seconds that a unit takes; 1 where that is less than the peak's.
double ShareOf(double peak, double seconds_per_unit) {
  return seconds_per_unit * peak > 1 ? 1 / (seconds_per_unit * peak) : 1;
}

void Describe(const Measured& measured, PrecisionConfig::Compute compute, DeviceConfig* device) {
  std::map<std::string, OpRates> rates;
  for (const auto& [name, samples] : measured.samples) {
    rates[name] = FitRates(samples);
    *device->add_ops() = OpOf(name, compute, rates[name]);
  }
  device->set_name("this machine");
  device->set_fp64_flops(compute == PrecisionConfig::FP64 ? measured.peak_flops : 0);
  device->set_fp32_flops(compute == PrecisionConfig::FP32 ? measured.peak_flops : 0);
  device->set_bf16_flops(compute == PrecisionConfig::BF16 ? measured.peak_flops : 0);
  device->set_memory_bandwidth(measured.bandwidth);
  device->set_product_efficiency(ShareOf(measured.peak_flops, rates["linear"].per_flop));
  device->set_attention_efficiency(ShareOf(measured.peak_flops, rates["attention"].per_flop));
  device->set_bandwidth_efficiency(ShareOf(measured.bandwidth, rates["add"].per_byte));
  device->set_op_seconds(rates["add"].per_group);
  device->set_reduction_bandwidth(measured.link.reduction_bandwidth);
}

LinkConfig LinkOf(const LinkRates& rates, double otherwise) {
  LinkConfig link;
  link.set_bandwidth(rates.bandwidth > 0 ? rates.bandwidth : otherwise);
  link.set_latency_seconds(rates.latency_seconds);
  return link;
}

}  // namespace

absl::StatusOr<ClusterConfig> Calibrate(const CalibrationOptions& options) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int at_once = std::min(options.num_ranks, cores);
  const int num_threads =
      options.threads_per_rank > 0 ? options.threads_per_rank : std::max(1, cores / at_once);
  Measured measured;  // by rank 0
  std::mutex mutex;
  absl::Status status;
  RunOnThreads(at_once, [&](Communicator& world) {
    Measured own;
    const absl::Status outcome = Measure(options.compute, num_threads, world, &own);
    const std::lock_guard lock(mutex);
    status.Update(outcome);
    if (world.rank() == 0) measured = std::move(own);
  });
  RETURN_IF_ERROR(status);

  ClusterConfig cluster;
  cluster.set_ranks(options.num_ranks);
  cluster.set_ranks_per_node(options.num_ranks);
  Describe(measured, options.compute, cluster.mutable_device());
  const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  cluster.mutable_device()->set_memory_bytes(static_cast<int64_t>(memory / options.num_ranks));
  *cluster.mutable_within_node() = LinkOf(measured.link, measured.bandwidth);
  *cluster.mutable_between_nodes() = cluster.within_node();
  cluster.set_overlaps_exchange(false);
  return cluster;
}

}  // namespace moebius
