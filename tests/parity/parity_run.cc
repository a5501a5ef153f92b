#include "tests/parity/parity_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <mutex>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "configs/load.h"
#include "core/base/check.h"
#include "core/tensor/copy.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/device_context.h"
#include "tests/testing/tiny_dataset.h"

namespace moebius {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

RunConfig ConfigOf(const Layout& layout, Overrides overrides) {
  overrides.push_back(absl::StrFormat("parallel.expert_size=%d", layout.expert_size));
  overrides.push_back(absl::StrFormat("train.micro_batch_size=%d", layout.micro_batch_size));
  overrides.push_back(absl::StrFormat("parallel.zero_stage=%d", layout.zero_stage));
  overrides.push_back(absl::StrFormat("parallel.bucket_bytes=%d", kBucketBytes));
  overrides.insert(overrides.end(), layout.more.begin(), layout.more.end());
  auto config = LoadRunConfig("configs/recipes/tiny.textproto", overrides);
  CHECK(config.ok()) << config.status();
  return *std::move(config);
}

Context::Options DeviceOf(const RunConfig& config) {
  if (config.run().device() != ExecutionConfig::CUDA) return {};
  const Context::Options options = test::OnTestDevice({});
  CHECK(options.accelerator != nullptr) << "run.device: CUDA asks for a device of the tests";
  return options;
}

void Append(const StepResult& result, ParityCurve* curve) {
  curve->loss.push_back(result.loss);
  curve->balance_loss.push_back(result.routing.balance_loss);
  curve->z_loss.push_back(result.routing.z_loss);
  curve->gradient_norm.push_back(result.gradient_norm);
  curve->min_margin = std::min(curve->min_margin, result.routing.min_margin);
  for (const auto& layer : result.routing.counts)
    std::ranges::copy(layer, std::back_inserter(curve->counts));
}

// Calls fn(i) for the global row-major index of each element of a piece, in the piece's order.
template <class Fn>
void ForElements(const Piece& piece, const Shape& global, const Fn& fn) {
  std::vector<int64_t> at = piece.begin;
  for (int d = 0; d >= 0;) {
    int64_t index = 0;
    for (int i = 0; i < global.rank(); ++i) index = index * global[i] + at[i];
    fn(index);
    for (d = global.rank() - 1; d >= 0 && ++at[d] == piece.end[d]; --d) at[d] = piece.begin[d];
  }
}

template <class T>
void CopyPieces(const Parameter& parameter, const Tensor& value, const MeshPosition& at,
                std::vector<double>* global) {
  const T* from = value.data<T>();  // pieces follow each other in local order
  for (const Piece& piece : parameter.placement.Pieces(at)) {
    ForElements(piece, parameter.placement.global_shape,
                [&](int64_t i) { (*global)[i] = static_cast<double>(*from++); });
  }
}

using State = std::map<std::string, std::vector<double>>;

// This rank's part of a parameter, zeros where another rank speaks.
std::vector<double> PartOf(Parameter& parameter, Session& session) {
  const MeshPosition& at = session.mesh().position();
  const DType dtype = parameter.value.dtype();
  const Tensor value =
      ToHost(session.weights().Lease(parameter, WeightFormat::kPlain, dtype), session.context());
  std::vector<double> global(parameter.placement.global_shape.num_elements());
  if (!parameter.placement.IsFirstReplica(at)) return global;
  if (dtype == DType::kF64) {
    CopyPieces<double>(parameter, value, at, &global);
  } else {
    CopyPieces<float>(parameter, value, at, &global);
  }
  return global;
}

std::vector<double> PartOf(const Buffer& buffer, bool speaks, Context& context) {
  const Tensor x = ToHost(buffer.value, context);
  if (!speaks) return std::vector<double>(x.size());
  if (x.dtype() == DType::kF64) return {x.span<double>().begin(), x.span<double>().end()};
  return {x.span<float>().begin(), x.span<float>().end()};
}

// Zeros for what other stages have.
void AddNamesOfAll(Communicator& world, State* state) {
  std::string own;
  for (const auto& [name, values] : *state) absl::StrAppend(&own, name, " ", values.size(), "\n");
  for (int root = 0; root < world.size(); ++root) {
    std::string text = own;
    auto length = static_cast<int64_t>(text.size());
    world.Broadcast(std::span(&length, 1), root).Wait();
    text.resize(length);
    world.Broadcast(std::span(reinterpret_cast<uint8_t*>(text.data()), text.size()), root).Wait();
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      const std::pair<std::string, std::string> entry = absl::StrSplit(line, ' ');
      state->try_emplace(entry.first, std::stoll(entry.second));
    }
  }
}

void GatherState(Session& session, Communicator& world, ParityCurve* curve) {
  const ParameterStore& store = session.model().store();
  const MeshPosition& at = session.mesh().position();
  const bool speaks_for_stage = at.index_on(Axis::kData) == 0 && at.index_on(Axis::kContext) == 0 &&
                                at.index_on(Axis::kTensor) == 0;
  State& state = curve->final_state;
  for (Parameter* parameter : store.parameters()) {
    state[parameter->name] = PartOf(*parameter, session);
  }
  for (const Buffer* buffer : store.buffers()) {
    state[buffer->name] = PartOf(*buffer, speaks_for_stage, session.context());
  }
  AddNamesOfAll(world, &state);
  for (auto& [name, values] : state) world.AllReduce(std::span(values)).Wait();
  std::span farthest(&curve->min_margin, 1);
  curve->min_margin = -curve->min_margin;
  world.AllReduceMax(farthest).Wait();
  curve->min_margin = -curve->min_margin;
}

double RelativeDifference(const std::vector<double>& a, const std::vector<double>& b) {
  CHECK_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return kInfinity;
    const double scale = std::max(std::abs(a[i]), std::abs(b[i]));
    if (scale > 0) worst = std::max(worst, std::abs(a[i] - b[i]) / scale);
  }
  return worst;
}

double RelativeL2(const std::vector<double>& a, const std::vector<double>& b) {
  CHECK_EQ(a.size(), b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += a[i] * a[i];
  }
  if (!std::isfinite(difference) || !std::isfinite(norm)) return kInfinity;
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

}  // namespace

std::string Layout::ToString() const {
  return absl::StrFormat("%d rank%s, experts over %d, micro-batches of %d, ZeRO stage %d %s", ranks,
                         ranks == 1 ? "" : "s", expert_size, micro_batch_size, zero_stage,
                         absl::StrJoin(more, " "));
}

ParityCurve TrainOnRank(const Layout& layout, const Overrides& overrides, Communicator& world,
                        const WrapWorld& wrap, const Episode& episode) {
  CHECK_EQ(world.size(), layout.ranks);
  const std::unique_ptr<Communicator> wrapped = wrap ? wrap(world) : nullptr;
  const RunConfig config = ConfigOf(layout, overrides);
  auto created =
      Session::Create(config, wrapped ? *wrapped : world, TinyDataset(), DeviceOf(config));
  CHECK(created.ok()) << created.status();
  Session& session = **created;
  session.set_records_margins(true);
  ParityCurve curve;
  if (episode.begin) episode.begin(session);
  const int64_t last_step =
      episode.last_step > 0 ? episode.last_step : session.config().train().num_steps();
  while (session.steps_done() < last_step) {
    if (episode.before_step) episode.before_step(session);
    Append(session.Step(), &curve);
  }
  if (episode.end) episode.end(session);
  GatherState(session, world, &curve);
  return curve;
}

ParityCurve TrainOnThreads(const Layout& layout, const Overrides& overrides, const WrapWorld& wrap,
                           const Episode& episode) {
  ParityCurve curve;
  RunOnThreads(layout.ranks, {.deadline = std::chrono::minutes(1)}, [&](Communicator& world) {
    ParityCurve own = TrainOnRank(layout, overrides, world, wrap, episode);
    if (world.rank() == 0) curve = std::move(own);
  });
  return curve;
}

Difference Compare(const ParityCurve& a, const ParityCurve& b) {
  const double loss = std::max({RelativeDifference(a.loss, b.loss),
                                RelativeDifference(a.balance_loss, b.balance_loss),
                                RelativeDifference(a.z_loss, b.z_loss)});
  Difference difference{
      .curve = std::max(loss, RelativeDifference(a.gradient_norm, b.gradient_norm)), .loss = loss};
  CHECK_EQ(a.final_state.size(), b.final_state.size());
  for (const auto& [name, x] : a.final_state) {
    difference.state = std::max(difference.state, RelativeL2(x, b.final_state.at(name)));
  }
  CHECK_EQ(a.counts.size(), b.counts.size());
  for (size_t i = 0; i < a.counts.size(); ++i) {
    difference.moved_pairs += std::max(a.counts[i] - b.counts[i], 0.0);
  }
  return difference;
}

bool Difference::Within(const Tolerance& tolerance) const {
  return curve <= tolerance.curve && state <= tolerance.state && moved_pairs == 0;
}

std::string Difference::ToString() const {
  return absl::StrFormat("%.1e | %.1e | %g", curve, state, moved_pairs);
}

}  // namespace moebius
