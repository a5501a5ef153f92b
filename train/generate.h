// Text from a model, token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/weight_images.h"
#include "model/transformer.h"

namespace moebius {

struct SamplingOptions {
  int64_t max_tokens = 100;
  double temperature = 0;  // 0: greedy, the likeliest token
  int64_t top_k = 0;       // sample among the k likeliest; 0: all
  double top_p = 1;        // and among the fewest whose probabilities reach p (arXiv 1904.09751)
  uint64_t seed = 1;
  int64_t context_tokens = 0;  // the model sees the last so many; 0: all
};

// One token of logits [V]. The draw is a function of (seed, index). Equal logits: the lower token.
int32_t SampleToken(std::span<const double> logits, const SamplingOptions& options, uint64_t index);

// Calls emit(token) for each new token until max_tokens, or until emit returns false.
// REQUIRES: prompt is not empty.
void Generate(Transformer& model, WeightSource& weights, Context& context,
              std::vector<int32_t> prompt, const SamplingOptions& options,
              const std::function<bool(int32_t)>& emit);

}  // namespace moebius
