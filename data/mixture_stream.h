// Training samples, drawn from domains by mixture weights. Sample i is a function of (seed, i)
// alone: no rank count, batch size or resume changes it.
//
// Samples come in blocks of 1,024. Within a block each domain has its share of the slots, rounded
// so that over many blocks the shares are exact, and the slots are shuffled. The samples of a
// domain are its windows of S + 1 tokens, drawn without replacement within an epoch, each epoch in
// an order of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "data/batch.h"
#include "data/shard.h"

namespace moebius {

class MixtureStream {
 public:
  struct Domain {
    std::string name;              // names its random order
    const Shard* shard = nullptr;  // outlives the stream
    double weight = 1;             // relative to the others, > 0
  };

  // InvalidArgument if a domain has no window of sequence_length + 1 tokens.
  static absl::StatusOr<MixtureStream> Create(std::vector<Domain> domains, int64_t sequence_length,
                                              uint64_t seed);

  Sample Get(int64_t sample) const;

  // Where sample i comes from. `window` counts windows of the shard.
  struct Draw {
    int domain;
    int64_t epoch;
    int64_t window;
  };
  Draw Locate(int64_t sample) const;

 private:
  // The plan of one block of samples: for each its domain, and how many samples of the domain came
  // before it since the beginning.
  struct Block {
    int64_t index = -1;
    std::vector<int> domain;
    std::vector<int64_t> ordinal;
  };

  MixtureStream(std::vector<Domain> domains, int64_t sequence_length, uint64_t seed);
  std::vector<int64_t> FirstSlots(int64_t block) const;  // of each domain, and the end
  std::vector<int64_t> SamplesBefore(int64_t block) const;
  const Block& PlanOf(int64_t block) const;

  std::vector<Domain> domains_;
  std::vector<double> cumulative_;  // shares of the domains before; [domains + 1]
  int64_t sequence_length_;
  uint64_t seed_;
  mutable Block plan_;  // the last one asked for
};

}  // namespace moebius
