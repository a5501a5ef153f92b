#include "train/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/random.h"
#include "core/tensor/copy.h"
#include "train/batch_loader.h"

namespace moebius {
namespace {

// Tokens by falling logit; equal ones by number.
std::vector<int32_t> ByLogit(std::span<const double> logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  return order;
}

std::vector<double> LastLogits(Transformer& model, WeightSource& weights, Context& context,
                               std::span<const int32_t> tokens) {
  const auto S = static_cast<int64_t>(tokens.size());
  Sample sample{.tokens = {tokens.begin(), tokens.end()},
                .labels = std::vector<int32_t>(S, 0),
                .document_ids = std::vector<int32_t>(S, 0),
                .positions = std::vector<int32_t>(S),
                .loss_weights = std::vector<float>(S, 0)};
  std::iota(sample.positions.begin(), sample.positions.end(), 0);
  const MicroBatch batch =
      ToDevice(MakeMicroBatch({sample}, {0}, {.sequence_length = S, .dtype = model.policy().master},
                              context),
               context);
  Tape tape(context, weights, Tape::Mode::kForwardOnly);
  const Tensor logits = ToHost(model.LastLogits(tape, batch, 1), context);
  std::vector<double> row(logits.size());
  for (int64_t i = 0; i < logits.size(); ++i) {
    row[i] = logits.dtype() == DType::kF64 ? logits.data<double>()[i] : logits.data<float>()[i];
  }
  return row;
}

}  // namespace

int32_t SampleToken(std::span<const double> logits, const SamplingOptions& options,
                    uint64_t index) {
  std::vector<int32_t> order = ByLogit(logits);
  if (options.temperature <= 0) return order[0];
  if (options.top_k > 0 && options.top_k < std::ssize(order)) order.resize(options.top_k);

  std::vector<double> probability(order.size());
  double sum = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    probability[i] = std::exp((logits[order[i]] - logits[order[0]]) / options.temperature);
    sum += probability[i];
  }
  size_t kept = 0;
  double reached = 0;
  while (kept < order.size() && (kept == 0 || reached < options.top_p * sum)) {
    reached += probability[kept++];
  }
  double left = RandomStream(options.seed, "generate").Uniform(index) * reached;
  for (size_t i = 0; i < kept; ++i) {
    left -= probability[i];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
}

void Generate(Transformer& model, WeightSource& weights, Context& context,
              std::vector<int32_t> prompt, const SamplingOptions& options,
              const std::function<bool(int32_t)>& emit) {
  CHECK(!prompt.empty());
  for (int64_t i = 0; i < options.max_tokens; ++i) {
    const size_t window = options.context_tokens > 0 ? options.context_tokens : prompt.size();
    const auto seen = std::min(prompt.size(), window);
    const std::vector<double> logits =
        LastLogits(model, weights, context, std::span(prompt).last(seen));
    prompt.push_back(SampleToken(logits, options, static_cast<uint64_t>(i)));
    if (!emit(prompt.back())) return;
  }
}

}  // namespace moebius
