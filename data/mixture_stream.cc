#include "data/mixture_stream.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/base/random.h"
#include "data/window.h"

namespace moebius {
namespace {

constexpr int64_t kBlock = 1024;
constexpr double kGoldenRatio = 0.61803398874989485;  // spreads the rounding over the blocks

}  // namespace

absl::StatusOr<MixtureStream> MixtureStream::Create(std::vector<Domain> domains,
                                                    int64_t sequence_length, uint64_t seed) {
  for (const Domain& domain : domains) {
    if (domain.shard->num_tokens() <= sequence_length) {
      return absl::InvalidArgumentError(
          absl::StrFormat("data.domains: %s has %d training tokens, a sequence needs "
                          "train.sequence_length + 1 = %d",
                          domain.name, domain.shard->num_tokens(), sequence_length + 1));
    }
  }
  return MixtureStream(std::move(domains), sequence_length, seed);
}

MixtureStream::MixtureStream(std::vector<Domain> domains, int64_t sequence_length, uint64_t seed)
    : domains_(std::move(domains)), sequence_length_(sequence_length), seed_(seed) {
  double total = 0;
  for (const Domain& domain : domains_) total += domain.weight;
  cumulative_ = {0.0};
  double sum = 0;
  for (const Domain& domain : domains_) cumulative_.push_back((sum += domain.weight) / total);
  cumulative_.back() = 1.0;
}

std::vector<int64_t> MixtureStream::FirstSlots(int64_t block) const {
  // Slot p stands at (p + offset) / kBlock on the line of cumulative shares.
  const double turns = static_cast<double>(block) * kGoldenRatio;
  const double offset = turns - std::floor(turns);
  std::vector<int64_t> first;
  for (const double share : cumulative_) {
    const double slot = std::ceil(share * static_cast<double>(kBlock) - offset);
    first.push_back(std::clamp<int64_t>(static_cast<int64_t>(slot), 0, kBlock));
  }
  first.front() = 0;
  first.back() = kBlock;
  return first;
}

std::vector<int64_t> MixtureStream::SamplesBefore(int64_t block) const {
  std::vector<int64_t> before(domains_.size(), 0);
  for (int64_t b = 0; b < block; ++b) {
    const std::vector<int64_t> first = FirstSlots(b);
    for (size_t d = 0; d < before.size(); ++d) before[d] += first[d + 1] - first[d];
  }
  return before;
}

const MixtureStream::Block& MixtureStream::PlanOf(int64_t block) const {
  if (plan_.index == block) return plan_;
  const RandomStream stream(seed_, absl::StrCat("mixture.", block));
  const std::vector<int64_t> first = FirstSlots(block);
  std::vector<int64_t> next = SamplesBefore(block);
  plan_ = {block, {}, {}};
  for (int64_t i = 0; i < kBlock; ++i) {
    const auto slot = static_cast<int64_t>(PermutedIndex(stream, i, kBlock));
    const auto domain = std::ranges::upper_bound(first, slot) - first.begin() - 1;
    plan_.domain.push_back(static_cast<int>(domain));
    plan_.ordinal.push_back(next[domain]++);
  }
  return plan_;
}

MixtureStream::Draw MixtureStream::Locate(int64_t sample) const {
  CHECK_GE(sample, 0);
  const Block& plan = PlanOf(sample / kBlock);
  const int domain = plan.domain[sample % kBlock];
  const int64_t ordinal = plan.ordinal[sample % kBlock];

  const int64_t windows = (domains_[domain].shard->num_tokens() - 1) / sequence_length_;
  const int64_t epoch = ordinal / windows;
  const RandomStream order(seed_, absl::StrCat("epoch.", domains_[domain].name, ".", epoch));
  const auto window = static_cast<int64_t>(PermutedIndex(order, ordinal % windows, windows));
  return {domain, epoch, window};
}

Sample MixtureStream::Get(int64_t sample) const {
  const Draw draw = Locate(sample);
  Sample result =
      ReadWindow(*domains_[draw.domain].shard, draw.window * sequence_length_, sequence_length_);
  result.domain = draw.domain;
  return result;
}

}  // namespace moebius
