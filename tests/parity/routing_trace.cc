#include "tests/parity/routing_trace.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "core/base/check.h"
#include "core/tensor/copy.h"
#include "model/inputs.h"

namespace moebius {
namespace {

constexpr double kRoundoff = 0x1p-24;  // of F32

std::vector<double> ToDoubles(const Tensor& x, int64_t begin, int64_t end) {
  if (x.dtype() == DType::kF64) return {x.data<double>() + begin, x.data<double>() + end};
  return {x.data<float>() + begin, x.data<float>() + end};
}

// A selection that the host can read.
struct HostSelection {
  Tensor tokens, x, scores, bias, offsets, experts;

  HostSelection(const Selection& selection, Context& context)
      : tokens(ToHostLater(selection.batch.shard.token_index, context)),
        x(ToHostLater(selection.x, context)),
        scores(ToHostLater(selection.scores, context)),
        offsets(ToHostLater(selection.plan.token_offsets, context)),
        experts(ToHostLater(selection.plan.expert, context)) {
    if (selection.bias.defined()) bias = ToHostLater(selection.bias, context);
    context.Wait();
  }
};

TracedChoice ChoiceOf(const HostSelection& selection, int64_t t) {
  const int64_t E = selection.scores.shape()[1], D = selection.x.shape()[1];
  const int32_t* offsets = selection.offsets.data<int32_t>();
  const int32_t* experts = selection.experts.data<int32_t>();
  return {
      .experts = {experts + offsets[t], experts + offsets[t + 1]},
      .x = ToDoubles(selection.x, t * D, (t + 1) * D),
      .scores = ToDoubles(selection.scores, t * E, (t + 1) * E),
      .bias = selection.bias.defined() ? ToDoubles(selection.bias, 0, E) : std::vector<double>(E)};
}

bool IsSameSet(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return std::set(a.begin(), a.end()) == std::set(b.begin(), b.end());
}

Tensor Int32s(const std::vector<int32_t>& numbers, Context& context) {
  const Tensor x = EmptyOnHost(DType::kI32, {std::ssize(numbers)}, "replay.plan", context);
  std::ranges::copy(numbers, x.data<int32_t>());
  return ToDevice(x, "replay.plan", context);
}

double AbsoluteProduct(const double* w, const std::vector<double>& x) {
  double sum = 0;
  for (size_t d = 0; d < x.size(); ++d) sum += std::abs(w[d] * x[d]);
  return sum;
}

std::vector<double> Minus(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> difference(a.size());
  std::ranges::transform(a, b, difference.begin(), std::minus());
  return difference;
}

double Norm(const std::vector<double>& x) {
  double sum = 0;
  for (const double x_i : x) sum += x_i * x_i;
  return std::sqrt(sum);
}

// What the choice compares, as F32 adds it.
double Compared(const TracedChoice& choice, int64_t e) {
  return static_cast<float>(choice.scores[e]) + static_cast<float>(choice.bias[e]);
}

// Between the last chosen and the best not chosen expert.
double MarginOf(const TracedChoice& choice) {
  double chosen = INFINITY, other = -INFINITY;
  for (int32_t e = 0; e < std::ssize(choice.scores); ++e) {
    const bool is_chosen = std::ranges::find(choice.experts, e) != choice.experts.end();
    if (is_chosen) chosen = std::min(chosen, Compared(choice, e));
    if (!is_chosen) other = std::max(other, Compared(choice, e));
  }
  return chosen - other;
}

}  // namespace

SelectionHook RoutingTrace::Hook() {
  return
      [this](const Selection& selection, Context& context) { return Follow(selection, context); };
}

// Where the sets are the same the order of the own plan stays, and so does every bit.
RoutingPlan RoutingTrace::Follow(const Selection& selection, Context& context) {
  const HostSelection on_host(selection, context);
  const auto tokens = on_host.tokens.span<int64_t>();
  std::vector<int32_t> offsets = {0}, experts;
  for (int64_t t = 0; t < std::ssize(tokens); ++t) {
    TracedChoice choice = ChoiceOf(on_host, t);
    const ChoiceKey key = {tokens[t] / tokens_per_step_ + 1, selection.layer, tokens[t]};
    const std::vector<int32_t>& follows =
        original_ == nullptr ? choice.experts : original_->choices_.at(key).experts;
    const bool differs = !IsSameSet(choice.experts, follows);
    std::ranges::copy(differs && mode_ == Mode::kReplay ? follows : choice.experts,
                      std::back_inserter(experts));
    offsets.push_back(static_cast<int32_t>(experts.size()));
    if (original_ != nullptr && !differs) continue;
    const std::lock_guard lock(mutex_);
    choices_.insert_or_assign(key, std::move(choice));
  }
  if (original_ == nullptr || mode_ == Mode::kCompare) return selection.plan;
  return kernels::BuildPlan(Int32s(offsets, context), Int32s(experts, context),
                            selection.plan.num_experts(), context);
}

void RoutingTrace::KeepWeights(Session& session) {
  constexpr std::string_view kName = "router.weight";
  for (Parameter* parameter : session.model().store().parameters()) {
    if (!parameter->name.ends_with(kName)) continue;
    const Tensor w =
        ToHost(session.weights().Lease(*parameter, WeightFormat::kPlain, parameter->value.dtype()),
               session.context());
    const std::string layer = parameter->name.substr(0, parameter->name.size() - kName.size());
    const std::lock_guard lock(mutex_);
    weights_[{session.steps_done() + 1, layer}] = ToDoubles(w, 0, w.size());
  }
}

// Let run a choose e and not f where run b chooses f and not e, and let s be what they compare:
// computed scores with their bias, which is the same in both. Then s_a(e) >= s_a(f) and
// s_b(f) >= s_b(e), so
//   margin <= s_a(e) - s_a(f) <= |s_a(e) - s_b(e)| + |s_a(f) - s_b(f)| <= 2 max |s_a - s_b|.
//
// 1. Logits z = w x. A sum of D products in any order, with or without fused multiply-add, errs by
//    at most gamma_D |w| |x|, gamma_n = n u / (1 - n u), u = 2^-24 (Higham, "Accuracy and Stability
//    of Numerical Algorithms", 2nd ed., equation 3.5). With what reached the two routers,
//      |z_a - z_b| <= |w_a| |x_a - x_b| + |w_a - w_b| |x_b| + gamma_D (|w_a| |x_a| + |w_b| |x_b|).
//    Let zeta be the largest over the experts.
// 2. Exact scores move by zeta / 2 at most: for softmax ds_e = s_e (dz_e - sum_j s_j dz_j), whose
//    second factor is within 2 zeta (1 - s_e), and s (1 - s) <= 1/4; for sigmoid by zeta / 4.
// 3. Computed scores err. exp errs by 4 u relative (kernels/cpu/loops_test.cc; CUDA's
//    expf is within 2 ulp), its argument z - max z by u |z - max z|, at most r u with r = ln(max s
//    / min s); both enter numerator and denominator. The sum of E errs by gamma_E, quotient and
//    product by 2 u: together (E + 10 + 2 r) u relative, and sigmoid by less. Adding the bias errs
//    by u of the sum.
double NearTieBound(const TracedChoice& a, const TracedChoice& b, const std::vector<double>& w_a,
                    const std::vector<double>& w_b) {
  const auto D = static_cast<int64_t>(a.x.size()), E = static_cast<int64_t>(a.scores.size());
  const double nu = static_cast<double>(D) * kRoundoff, gamma = nu / (1 - nu);
  const std::vector<double> dx = Minus(a.x, b.x), dw = Minus(w_a, w_b);
  double zeta = 0, largest = 0, smallest = INFINITY, largest_sum = 0;
  for (int64_t e = 0; e < E; ++e) {
    const double *w_ae = w_a.data() + e * D, *w_be = w_b.data() + e * D;
    zeta = std::max(zeta, AbsoluteProduct(w_ae, dx) + AbsoluteProduct(dw.data() + e * D, b.x) +
                              gamma * (AbsoluteProduct(w_ae, a.x) + AbsoluteProduct(w_be, b.x)));
    largest = std::max({largest, a.scores[e], b.scores[e]});
    smallest = std::min({smallest, a.scores[e], b.scores[e]});
    largest_sum = std::max({largest_sum, std::abs(Compared(a, e)), std::abs(Compared(b, e))});
  }
  const double r = std::log(largest / smallest);
  const double error =
      kRoundoff * ((static_cast<double>(E) + 10 + 2 * r) * largest + largest_sum);  // of one run
  return 2 * (zeta / 2 + 2 * error);
}

// NaN if either is: no limit lets it pass.
double Larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }

NearTies FindNearTies(const RoutingTrace& original, const RoutingTrace& replayed) {
  NearTies ties;
  for (const auto& [key, other] : replayed.choices()) {
    const auto& [step, layer, token] = key;
    const TracedChoice& own = original.choices().at(key);
    const std::vector<double>&w_own = original.weights(step, layer),
          &w_other = replayed.weights(step, layer);
    const double margin = MarginOf(own);
    ++ties.count;
    ties.margin = Larger(ties.margin, margin);
    ties.share_of_bound =
        Larger(ties.share_of_bound, margin / NearTieBound(own, other, w_own, w_other));
    for (const double distance :
         {Norm(Minus(own.x, other.x)) / Norm(own.x), Norm(Minus(w_own, w_other)) / Norm(w_own)}) {
      ties.input_distance = Larger(ties.input_distance, distance);
    }
  }
  return ties;
}

}  // namespace moebius
