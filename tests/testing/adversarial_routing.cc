#include "tests/testing/adversarial_routing.h"

#include <numeric>

#include "core/base/random.h"

namespace moebius::test {

std::vector<double> RoutingCase::token_offsets() const {
  std::vector<double> offsets = {0};
  for (const auto& experts : experts_of_token)
    offsets.push_back(offsets.back() + static_cast<double>(experts.size()));
  return offsets;
}

std::vector<double> RoutingCase::experts() const {
  std::vector<double> all;
  for (const auto& experts : experts_of_token)
    all.insert(all.end(), experts.begin(), experts.end());
  return all;
}

std::vector<RoutingCase> AdversarialRoutings(int num_tokens, int num_experts) {
  const RandomStream stream(3, "adversarial routing");
  std::vector<int> everyone(num_experts);
  std::iota(everyone.begin(), everyone.end(), 0);

  RoutingCase all_to_one{"all to one", num_experts, {}}, none{"none", num_experts, {}};
  RoutingCase dense{"every expert", num_experts, {}}, uniform{"uniform", num_experts, {}};
  RoutingCase some_empty{"odd experts empty", num_experts, {}}, ragged{"ragged", num_experts, {}};
  for (int t = 0; t < num_tokens; ++t) {
    all_to_one.experts_of_token.push_back({num_experts - 1});
    none.experts_of_token.emplace_back();
    dense.experts_of_token.push_back(everyone);
    uniform.experts_of_token.push_back({(t + 1) % num_experts, t % num_experts});
    some_empty.experts_of_token.push_back({t * 2 % num_experts / 2 * 2});
    // Any number of experts, any order.
    const uint64_t first = stream.Below(t, num_experts);
    const uint64_t count = stream.Below(t + 1000, num_experts + 1);
    std::vector<int> experts;
    for (uint64_t i = 0; i < count; ++i)
      experts.push_back(static_cast<int>((first + num_experts - i) % num_experts));
    ragged.experts_of_token.push_back(experts);
  }
  const RoutingCase no_tokens{"no tokens", num_experts, {}};
  return {all_to_one, none, dense, uniform, some_empty, ragged, no_tokens};
}

std::vector<double> TiedScores(int num_tokens, int num_experts) {
  const RandomStream stream(4, "tied scores");
  std::vector<double> scores(static_cast<size_t>(num_tokens) * num_experts);
  for (size_t i = 0; i < scores.size(); ++i)
    scores[i] = 0.25 * static_cast<double>(stream.Below(i, 3));
  return scores;
}

}  // namespace moebius::test
