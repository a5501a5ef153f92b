#include "tests/parity/cell_checks.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "tests/parity/routing_trace.h"

namespace moebius {
namespace {

Overrides With(Overrides trained, const Overrides& overrides) {
  trained.insert(trained.end(), overrides.begin(), overrides.end());
  return trained;
}

// The one rank that a cell is compared with; trained by the first who asks.
const ParityCurve& OneRank(const MatrixCell& cell, const Overrides& trained) {
  struct Training {
    std::once_flag once;
    ParityCurve curve;
  };
  static std::mutex mutex;
  static std::map<std::pair<Overrides, int>, Training> trainings;
  Training* training;
  {
    const std::lock_guard lock(mutex);
    training = &trainings[{trained, cell.reference.micro_batch_size}];
  }
  std::call_once(training->once,
                 [&] { training->curve = TrainOnThreads(cell.reference, trained); });
  return training->curve;
}

CellResult CheckDouble(const MatrixCell& cell) {
  const Overrides trained = With(cell.trained, {"precision.compute=FP64"});
  const Difference difference =
      Compare(OneRank(cell, trained), TrainOnThreads(cell.layout, trained));
  return {difference.ToString(), difference.Within(kDoubleTolerance),
          std::max(difference.curve, difference.state)};
}

ParityCurve TrainTraced(const Layout& layout, const Overrides& trained,
                        const std::function<void(Session&)>& begin, RoutingTrace* trace) {
  const auto start = [&](Session& session) {
    if (begin) begin(session);
    session.set_selection_hook(trace->Hook());
  };
  return TrainOnThreads(
      layout, trained, nullptr,
      {.begin = start, .before_step = [&](Session& session) { trace->KeepWeights(session); }});
}

CellResult CheckSingle(const MatrixCell& cell) {
  const ReplayResult result = CompareReplayed(cell);
  const Difference& difference = result.difference;
  const NearTies& ties = result.near_ties;
  return {absl::StrFormat("%.1e | %.1e | %.1e | %d | %.1e | %.2f | %d", difference.loss,
                          difference.curve, difference.state, ties.count, ties.margin,
                          ties.share_of_bound, result.flips),
          result.passed(), std::max(difference.loss, difference.state)};
}

double Distance(const ParityCurve& a, const ParityCurve& b) {
  CHECK_EQ(a.loss.size(), b.loss.size());
  double sum = 0;
  for (size_t i = 0; i < a.loss.size(); ++i) sum += std::pow(a.loss[i] - b.loss[i], 2);
  return std::sqrt(sum / static_cast<double>(a.loss.size()));
}

// The mean of the two in the middle, of an even number.
double Median(std::vector<double> x) {
  std::ranges::sort(x);
  return (x[(x.size() - 1) / 2] + x[x.size() / 2]) / 2;
}

}  // namespace

ReplayResult CompareReplayed(const MatrixCell& cell, const std::function<void(Session&)>& begin) {
  const Overrides trained = With(cell.trained, {"precision.compute=FP32"});
  RoutingTrace original(StepTokens(cell));
  const ParityCurve one = TrainTraced(cell.reference, trained, begin, &original);
  RoutingTrace replayed(original, RoutingTrace::Mode::kReplay);
  ReplayResult result{
      .difference = Compare(one, TrainTraced(cell.layout, trained, begin, &replayed)),
      .near_ties = FindNearTies(original, replayed)};
  // A run whose own choices are all those replayed is the free-running one.
  if (replayed.choices().empty()) return result;
  RoutingTrace free(original, RoutingTrace::Mode::kCompare);
  TrainTraced(cell.layout, trained, begin, &free);
  result.flips = std::ssize(free.choices());
  result.starts_with_near_tie =
      result.flips > 0 && free.choices().begin()->first == replayed.choices().begin()->first;
  return result;
}

CellResult CheckBrain(const MatrixCell& cell, int num_seeds) {
  constexpr double kLimit = 2;
  std::vector<double> own, of_one, ratios;
  for (int seed = 1; seed <= num_seeds; ++seed) {
    const Overrides seeded = With(cell.trained, {absl::StrCat("run.seed=", seed)});
    const Overrides trained = With(seeded, {"precision.compute=BF16"});
    const ParityCurve& exact =
        OneRank(cell, With(seeded, {"precision.compute=FP64", "run.device=CPU"}));
    of_one.push_back(Distance(OneRank(cell, trained), exact));
    own.push_back(Distance(TrainOnThreads(cell.layout, trained), exact));
    ratios.push_back(own.back() / of_one.back());
  }
  return {absl::StrFormat("%.1e | %.1e | %.2f", Median(of_one), Median(own), Median(ratios)),
          Median(ratios) <= kLimit, Median(ratios)};
}

bool ReplayResult::passed() const {
  return difference.loss <= kReplayTolerance.curve && difference.state <= kReplayTolerance.state &&
         difference.moved_pairs == 0 && near_ties.share_of_bound <= 1 &&
         near_ties.input_distance <= kReplayTolerance.state && starts_with_near_tie;
}

const CellCheck kDoubleCheck = {"FP64", "curve | state | moved pairs", CheckDouble};
const CellCheck kSingleCheck = {
    "FP32", "losses | curve | state | near ties | margin | margin / bound | flips", CheckSingle};
const CellCheck kBrainCheck = {"BF16", "one rank to FP64 | layout to FP64 | ratio",
                               [](const MatrixCell& cell) { return CheckBrain(cell, 8); }};

}  // namespace moebius
