// Training samples, drawn from domains by mixture weights. Sample i is a function of (seed, i) and
// the data alone: no rank count, batch size or resume changes it, and nothing needs to be saved.
//
// Which domain: samples come in blocks of 256. After each block the domains' shares of all samples
// so far are their weights, as exactly as whole samples allow (Webster's apportionment); inside a
// block the domains are shuffled.
//
// Which tokens: a domain of N tokens is a ring. In each epoch it is cut, from a random token on,
// into floor(N / S) windows of S tokens that do not overlap. Each is drawn once, in random order,
// before the next epoch begins. A domain's windows do not depend on the other domains.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "core/base/status.h"
#include "data/batch.h"
#include "data/shard.h"

namespace moebius {

// Thread-safe.
class MixtureStream {
 public:
  struct Domain {
    std::string name;              // names its random order
    const Shard* shard = nullptr;  // outlives the stream
    double weight = 1;             // relative to the others, > 0
  };

  // InvalidArgument if there is no domain, a weight is not above 0, or a domain has fewer than
  // sequence_length + 1 tokens. REQUIRES: sequence_length >= 1.
  static absl::StatusOr<MixtureStream> Create(std::vector<Domain> domains, int64_t sequence_length,
                                              uint64_t seed);

  // REQUIRES: sample >= 0.
  Sample Get(int64_t sample) const;

  // Where a sample comes from.
  struct Draw {
    int domain;
    int64_t epoch;  // of the domain
    int64_t begin;  // its first token in the shard
  };
  Draw Locate(int64_t sample) const;

 private:
  MixtureStream(std::vector<Domain> domains, int64_t sequence_length, uint64_t seed);

  std::vector<Domain> domains_;
  std::vector<double> shares_;  // sum to 1
  int64_t sequence_length_;
  uint64_t seed_;
  RandomStream shuffle_;
};

// How many of the first `count` samples each of D shares gets by Webster's method (Sainte-Lague):
// within 1/2 + share * D / 2 of share * count, never falling as count grows, summing to count.
// `shares` sum to 1.
std::vector<int64_t> Apportion(std::span<const double> shares, int64_t count);

}  // namespace moebius
