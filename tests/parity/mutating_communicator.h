// A communicator with one mistake in it: what the parity cells must notice.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace moebius {

struct Mutation {
  enum class Kind {
    kNone,
    kDropped,        // the operation does not happen: what stands there stays
    kDividedBySize,  // its sum is divided by the number of ranks
    kCountedTwice,   // rank 0 of the group adds its part twice
    kPartLost,       // rank 0 of the group adds nothing
  };
  // An all-reduce has the first three kinds, a reduce-scatter kDropped and kPartLost, an all-gather
  // kDropped.
  enum class Operation { kAllReduce, kReduceScatter, kAllGather };
  std::string name;
  Kind kind = Kind::kNone;
  std::string group;                     // of every operation in a group of this name ...
  int64_t min_count = 0, max_count = 0;  // ... with so many elements, both included. F64.
  Operation operation = Operation::kAllReduce;
};

// Passes everything on to `world`, and so do the groups split from it, but for the mutation's
// operations. `applied` counts these. All three outlive it.
std::unique_ptr<Communicator> Mutate(Communicator& world, const Mutation& mutation,
                                     std::atomic<int>* applied);

}  // namespace moebius
