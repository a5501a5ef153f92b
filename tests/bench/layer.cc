// One mixture-of-experts layer as a training step runs it, forward and backward: router, experts
// and what goes between them; without norm, residual and update. Beside it the machine's limits,
// which are measured in the same process.
//   bazel run -c opt //tests/bench:layer -- --shape olmoe:2048:1024:64:8 --tokens 2048
// --device cuda: on the GPU of the plugin beside this program.
//
// Experts are drawn, so that their load does not depend on the weights: expert i with a chance in
// proportion to 1 / (i + 1)^skew, K different ones for each token.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "kernels/weight_images.h"
#include "model/moe/moe_layer.h"
#include "parallel/thread_communicator.h"
#include "tests/bench/device.h"
#include "tests/bench/machine.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kBadInput = 2;
constexpr int kFewestRounds = 2;  // however slow the device is
constexpr double kLongest = 10;   // seconds after which no further round begins

struct LayerFlags {
  std::vector<std::string> shapes;
  std::vector<double> skews = {0};
  int64_t tokens = 2048;
  std::string dtype = "bf16", device = "cpu";
  int threads = 2, rounds = 5;

  DType compute() const { return dtype == "bf16" ? DType::kBF16 : DType::kF32; }
};

struct LayerShape {
  std::string name;
  int64_t D, F, E, K;

  // Of a token, over the parameters that it meets, forward and backward.
  double flops() const { return 3.0 * static_cast<double>(6 * D * F * K + 2 * D * E); }
};

bool Parse(const std::string& text, LayerShape* shape) {
  char name[65];
  long long D, F, E, K;
  char rest;
  if (std::sscanf(text.c_str(), "%64[^:]:%lld:%lld:%lld:%lld%c", name, &D, &F, &E, &K, &rest) !=
      5) {
    return false;
  }
  *shape = {name, D, F, E, K};
  return std::min({D, F, E, K}) > 0 && K <= E;
}

ModelSpec SpecOf(const LayerShape& shape) {
  return {.num_layers = 1,
          .hidden_size = shape.D,
          .moe = {.num_experts = shape.E, .top_k = shape.K, .expert_hidden_size = shape.F},
          .is_moe_layer = {true}};
}

// The experts of each token.
RoutingPlan DrawPlan(const LayerShape& shape, int64_t T, double skew, Context& context) {
  std::vector<double> until = {0};
  for (int64_t i = 0; i < shape.E; ++i) until.push_back(until.back() + std::pow(i + 1, -skew));
  const RandomStream stream(1, "experts");
  uint64_t draw = 0;
  std::vector<int32_t> offsets = {0}, experts;
  for (int64_t t = 0; t < T; ++t) {
    const auto first = std::ssize(experts);
    while (std::ssize(experts) < first + shape.K) {
      const double at = stream.Uniform(draw++) * until.back();
      const auto above = std::upper_bound(until.begin() + 1, until.end() - 1, at);
      const auto expert = static_cast<int32_t>(above - until.begin() - 1);
      if (std::find(experts.begin() + first, experts.end(), expert) == experts.end()) {
        experts.push_back(expert);
      }
    }
    offsets.push_back(static_cast<int32_t>(experts.size()));
  }
  return kernels::BuildPlan(TensorOf(context, offsets, "plan"), TensorOf(context, experts, "plan"),
                            shape.E, context);
}

class LayerBench {
 public:
  LayerBench(const LayerShape& shape, int64_t T, DType compute, Mesh& mesh, Context& context)
      : shape_(shape),
        spec_(SpecOf(shape)),
        context_(context),
        store_(context, mesh.position(), DType::kF32),
        layer_(spec_, "moe.", store_, mesh, context, {}),
        weights_(context),
        x_(NormalTensor(context, compute, {T, shape.D}, "x")),
        dy_(NormalTensor(context, compute, {T, shape.D}, "dy")) {
    step_.num_tokens = static_cast<double>(T);
    for (Parameter* parameter : store_.parameters()) {
      const Shape& of_value = parameter->value.shape();
      parameter->value = NormalTensor(context, DType::kF32, of_value, "value", spec_.init_std);
      parameter->gradient = context.Empty(DType::kF32, of_value, "gradient");
    }
  }

  Json Measure(double skew, int rounds, const Limits& limits) {
    const RoutingPlan plan = DrawPlan(shape_, x_.shape()[0], skew, context_);
    const SelectionHook hook = [&](const Selection&, Context&) { return plan; };
    step_.selection_hook = &hook;
    const auto run = [this] { ForwardBackward(); };
    run();  // makes the weights' images
    const int64_t calls = CallsInARow(context_, run);
    std::vector<double> seconds;
    double total = 0;
    for (int i = 0; i < rounds && (i < kFewestRounds || total < kLongest); ++i) {
      seconds.push_back(SecondsPerCall(context_, calls, run));
      total += seconds.back() * static_cast<double>(calls);
    }
    std::ranges::sort(seconds);
    return Report(skew, seconds.front(), seconds[seconds.size() / 2], limits);
  }

 private:
  void ForwardBackward() {
    for (Parameter* parameter : store_.parameters()) parameter->gradient_written = false;
    layer_.balance().BeginStep();
    Tape tape(context_, weights_);
    const Var x = tape.Input(x_);
    const auto [routing, pair_weights] = layer_.Route(tape, x, batch_, step_);
    const Var rows = layer_.Dispatch(tape, x, routing).Wait(tape);
    const Var made = layer_.RunExperts(tape, rows, pair_weights, routing);
    const Var y = layer_.Combine(tape, made, pair_weights, routing).Wait(tape);
    const Tape::Seed seed = {y.id(), dy_};
    tape.Backward({&seed, 1});
  }

  Json Report(double skew, double best, double median, const Limits& limits) {
    const std::vector<double> counts = NumbersOf(layer_.balance().record().counts(), context_);
    const auto T = static_cast<double>(x_.shape()[0]);
    const double flops = T * shape_.flops(), mean = T * shape_.K / shape_.E;
    const auto both = [&](double at_best, double at_median) {
      return Json{{"best", at_best}, {"median", at_median}};
    };
    const double peak = flops / limits.flops(x_.dtype());
    return {{"shape", shape_.name},
            {"hidden_size", shape_.D},
            {"expert_hidden_size", shape_.F},
            {"num_experts", shape_.E},
            {"top_k", shape_.K},
            {"tokens", x_.shape()[0]},
            {"dtype", NameOf(x_.dtype())},
            {"skew", skew},
            {"largest_load_over_mean", *std::ranges::max_element(counts) / mean},
            {"flops", flops},
            {"milliseconds", both(1e3 * best, 1e3 * median)},
            {"tflops_per_second", both(flops / best / 1e12, flops / median / 1e12)},
            {"share_of_peak", both(peak / best, peak / median)},
            {"peak_bytes", context_.arena().total().peak_bytes}};
  }

  const LayerShape shape_;
  const ModelSpec spec_;
  Context& context_;
  ParameterStore store_;
  MoeLayer layer_;
  kernels::ResidentWeights weights_;
  const MicroBatch batch_;
  StepInputs step_;
  const Tensor x_, dy_;
};

void Print(const Json& json) {
  std::printf("%s\n", json.dump().c_str());
  std::fflush(stdout);
}

void MeasureAll(const LayerFlags& flags, const Context::Options& options, Communicator& world) {
  const auto mesh = Mesh::Create({}, world);
  CHECK(mesh.ok()) << mesh.status();
  Limits limits;
  {
    Context context(options);
    limits = MeasureLimits(context);
    const bool on_cpu = context.accelerator() == nullptr;
    Print({{"device", on_cpu ? ProcessorName() : context.accelerator()->Describe()},
           {"limits",
            {{"fp32_flops_per_second", limits.fp32_flops},
             {"bf16_flops_per_second", limits.bf16_flops},
             {"bytes_per_second", limits.bandwidth},
             {"source", limits.source}}}});
  }
  for (const std::string& text : flags.shapes) {
    LayerShape shape;
    CHECK(Parse(text, &shape)) << text;
    Context context(options);
    LayerBench bench(shape, flags.tokens, flags.compute(), **mesh, context);
    for (const double skew : flags.skews) Print(bench.Measure(skew, flags.rounds, limits));
  }
}

void AddFlags(CLI::App& app, LayerFlags* flags) {
  app.add_option("--shape", flags->shapes,
                 "NAME:HIDDEN:EXPERT_HIDDEN:EXPERTS:TOP_K, once for each layer")
      ->required()
      ->check([](const std::string& text) {
        LayerShape shape;
        return Parse(text, &shape) ? "" : text + " is no NAME:HIDDEN:EXPERT_HIDDEN:EXPERTS:TOP_K";
      });
  app.add_option("--skew", flags->skews, "0: even; several are measured one after the other")
      ->check(CLI::Range(0.0, 10.0));
  app.add_option("--tokens", flags->tokens)->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_option("--dtype", flags->dtype)->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--device", flags->device)->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--threads", flags->threads, "of the CPU")->check(CLI::Range(1, 4096));
  app.add_option("--rounds", flags->rounds)->check(CLI::Range(1, 1000));
}

int Main(int argc, char** argv) {
  CLI::App app("Measures mixture-of-experts layers, forward and backward: JSON, a line each.");
  LayerFlags flags;
  AddFlags(app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadInput;
  }
  absl::StatusOr<Context::Options> options = Context::Options{.num_threads = flags.threads};
  if (flags.device == "cuda") options = OnGpu(*options);
  if (!options.ok()) {
    std::fprintf(stderr, "layer: %s\n", options.status().ToString().c_str());
    return kBadInput;
  }
  RunOnThreads(1, [&](Communicator& world) { MeasureAll(flags, *options, world); });
  return 0;
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) { return moebius::Main(argc, argv); }
