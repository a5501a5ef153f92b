// What the routers of a run saw and chose, token by token: recorded on one rank, replayed in any
// layout, and what a layout would have chosen otherwise.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "model/selection_hook.h"
#include "train/session.h"

namespace moebius {

// Of one token in one MoE layer.
struct TracedChoice {
  std::vector<int32_t> experts;  // K, as the plan lists them
  std::vector<double> x;         // [D]: what the router saw
  std::vector<double> scores;    // [E]
  std::vector<double> bias;      // [E]: added for the choice; zeros without bias balancing
};

// Step, layer ("layers.3.moe."), global token: in this order a choice depends on no later one.
using ChoiceKey = std::tuple<int64_t, std::string, int64_t>;

// Ranks that are threads share one trace. Each token of a layer is of one rank.
class RoutingTrace {
 public:
  // `tokens_per_step`: of the global batch, padding included. Replaying, the hook answers with the
  // experts that `original`, which outlives this, has of the token, and of all choices only those
  // that differ from its are kept. Else it changes nothing, and all are kept.
  explicit RoutingTrace(int64_t tokens_per_step) : tokens_per_step_(tokens_per_step) {}
  enum class Mode { kReplay, kCompare };
  RoutingTrace(const RoutingTrace& original, Mode mode)
      : tokens_per_step_(original.tokens_per_step_), original_(&original), mode_(mode) {}

  // Refers to this.
  SelectionHook Hook();

  // Keeps the router weights that the session's next step uses. All ranks call it together.
  void KeepWeights(Session& session);

  const std::map<ChoiceKey, TracedChoice>& choices() const { return choices_; }
  // [E, D] of a step and layer.
  const std::vector<double>& weights(int64_t step, const std::string& layer) const {
    return weights_.at({step, layer});
  }

 private:
  RoutingPlan Follow(const Selection& selection, Context& context);

  const int64_t tokens_per_step_;
  const RoutingTrace* const original_ = nullptr;
  const Mode mode_ = Mode::kCompare;
  std::mutex mutex_;
  std::map<ChoiceKey, TracedChoice> choices_;
  std::map<std::pair<int64_t, std::string>, std::vector<double>> weights_;
};

// How far rounding to F32 can move apart the scores that two correct runs give one token: a bound
// on the margin between the last chosen expert and the first not chosen, where their choices
// differ. Derived beside the function's body. `a` and `b` are the token's choices in the two runs,
// w_a and w_b [E, D] their router weights.
double NearTieBound(const TracedChoice& a, const TracedChoice& b, const std::vector<double>& w_a,
                    const std::vector<double>& w_b);

// Where choices of a layout are not those of one rank.
struct NearTies {
  int64_t count = 0;
  double margin = 0;          // the largest, in the scores of one rank
  double share_of_bound = 0;  // the largest margin / NearTieBound
  // The largest relative L2 distance between what the two routers saw, or their weights: what the
  // bound takes for granted.
  double input_distance = 0;
};

// Of a replayed run with that which it replays: no choice follows from another that differs, so
// each is a first difference.
NearTies FindNearTies(const RoutingTrace& original, const RoutingTrace& replayed);

}  // namespace moebius
