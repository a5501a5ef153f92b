#include "data/mixture_stream.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <utility>

#include "core/base/check.h"
#include "data/window.h"

namespace moebius {
namespace {

constexpr int64_t kBlock = 256;

struct Slot {
  int domain;
  int64_t ordinal;  // how many samples of the domain come before this one
};

// The sample at `place` of a block. The block's domains are laid out by their quotas and shuffled.
Slot SlotOf(std::span<const double> shares, const RandomStream& shuffle, int64_t block,
            int64_t place) {
  std::vector<int64_t> drawn = Apportion(shares, block * kBlock);
  const std::vector<int64_t> after = Apportion(shares, (block + 1) * kBlock);
  std::vector<int> domains;
  for (size_t d = 0; d < drawn.size(); ++d) {
    CHECK_LE(drawn[d], after[d]) << "apportionment fell in block " << block;
    domains.insert(domains.end(), static_cast<size_t>(after[d] - drawn[d]), static_cast<int>(d));
  }
  const auto first = static_cast<uint64_t>(block * kBlock);
  for (uint64_t i = kBlock - 1; i > 0; --i) {  // Fisher-Yates
    std::swap(domains[i], domains[shuffle.Below(first + i, i + 1)]);
  }
  const int domain = domains[static_cast<size_t>(place)];
  return {domain, drawn[static_cast<size_t>(domain)] +
                      std::count(domains.begin(), domains.begin() + place, domain)};
}

}  // namespace

std::vector<int64_t> Apportion(std::span<const double> shares, int64_t count) {
  // Rounding shares * (count - D/2) never hands out more than `count`. The samples left go, one by
  // one, to the highest share / (samples so far + 1/2). The last factor keeps common ties, which
  // rounding errors could decide either way, out of the first part.
  const double D = static_cast<double>(shares.size());
  const double multiplier = (static_cast<double>(count) - D / 2) * (1 - 1e-9);
  std::vector<int64_t> counts;
  for (const double share : shares) {
    counts.push_back(std::max<int64_t>(0, static_cast<int64_t>(share * multiplier + 0.5)));
  }
  using Claim = std::pair<double, int>;  // of the lower domain first among equals
  std::priority_queue<Claim> claims;
  const auto claim = [&](size_t d) {
    claims.emplace(shares[d] / (static_cast<double>(counts[d]) + 0.5), -static_cast<int>(d));
  };
  for (size_t d = 0; d < shares.size(); ++d) claim(d);
  for (int64_t left = count - std::reduce(counts.begin(), counts.end()); left > 0; --left) {
    const auto d = static_cast<size_t>(-claims.top().second);
    claims.pop();
    ++counts[d];
    claim(d);
  }
  return counts;
}

absl::StatusOr<MixtureStream> MixtureStream::Create(std::vector<Domain> domains,
                                                    int64_t sequence_length, uint64_t seed) {
  CHECK_GE(sequence_length, 1) << "sequence length";
  if (domains.empty()) return absl::InvalidArgumentError("data.domains: the mixture has no domain");
  for (const Domain& domain : domains) {
    if (!(domain.weight > 0 && std::isfinite(domain.weight))) {
      return absl::InvalidArgumentError(absl::StrCat("data.domains: the weight of ", domain.name,
                                                     " is ", domain.weight, ", must be above 0"));
    }
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
    : domains_(std::move(domains)),
      sequence_length_(sequence_length),
      seed_(seed),
      shuffle_(seed, "data.mixture") {
  double total = 0;
  for (const Domain& domain : domains_) total += domain.weight;
  for (const Domain& domain : domains_) shares_.push_back(domain.weight / total);
}

MixtureStream::Draw MixtureStream::Locate(int64_t sample) const {
  CHECK_GE(sample, 0) << "sample index";
  const Slot slot = SlotOf(shares_, shuffle_, sample / kBlock, sample % kBlock);
  const Domain& domain = domains_[static_cast<size_t>(slot.domain)];
  const int64_t tokens = domain.shard->num_tokens();
  const int64_t windows = tokens / sequence_length_;
  const int64_t epoch = slot.ordinal / windows;

  const RandomStream order(seed_, absl::StrCat("data.order.", domain.name, ".", epoch));
  const RandomStream starts(seed_, absl::StrCat("data.start.", domain.name));
  const auto window = static_cast<int64_t>(PermutedIndex(
      order, static_cast<uint64_t>(slot.ordinal % windows), static_cast<uint64_t>(windows)));
  const auto start = static_cast<int64_t>(
      starts.Below(static_cast<uint64_t>(epoch), static_cast<uint64_t>(tokens)));
  return {slot.domain, epoch, (start + window * sequence_length_) % tokens};
}

Sample MixtureStream::Get(int64_t sample) const {
  const Draw draw = Locate(sample);
  Sample result = ReadRingWindow(*domains_[static_cast<size_t>(draw.domain)].shard, draw.begin,
                                 sequence_length_);
  result.domain = draw.domain;
  return result;
}

}  // namespace moebius
