// Routings that break what reads a plan: all to one expert, none, ragged, uneven, ties.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moebius::test {

struct RoutingCase {
  std::string name;
  int num_experts = 0;
  std::vector<std::vector<int>> experts_of_token;

  // As RoutingPlan's token_offsets and expert, in doubles for FromValues.
  std::vector<double> token_offsets() const;
  std::vector<double> experts() const;
};

// Cases over `num_tokens` tokens and `num_experts` (>= 2) experts, and cases without any token.
std::vector<RoutingCase> AdversarialRoutings(int num_tokens, int num_experts);

// [num_tokens, num_experts] scores of few distinct values, exact in every dtype: most choices are
// ties.
std::vector<double> TiedScores(int num_tokens, int num_experts);

}  // namespace moebius::test
