// A collective or a message as a rank calls it, for boards and messages about them.
#pragma once

#include <cstdint>
#include <string>

#include "core/tensor/dtype.h"

namespace moebius {

enum class Collective : uint8_t {
  kAllReduce,
  kAllReduceMax,
  kAllGather,
  kReduceScatter,
  kAllToAllV,
  kBroadcast,
  kBarrier,
  kSend,  // a message; its two ranks count for themselves, apart from the group's collectives
  kReceive,
};
const char* NameOf(Collective collective);  // "all-reduce"

struct Call {
  Collective collective = Collective::kBarrier;
  DType dtype = DType::kU8;
  int root = 0;          // of a broadcast: the rank in the group; of a message: the other, of world
  int64_t count = 0;     // elements of a rank; of a row for kAllToAllV
  int64_t bytes = 0;     // that this rank hands in, or receives in a message
  int64_t sequence = 0;  // from 1, within the group; of a message within its two ranks
  int64_t order = 0;     // from 1, within the rank

  bool is_message() const {
    return collective == Collective::kSend || collective == Collective::kReceive;
  }

  // What all ranks of a group must agree on.
  bool SameAs(const Call& other) const {
    return collective == other.collective && dtype == other.dtype && root == other.root &&
           count == other.count;
  }

  std::string ToString() const;  // "all-reduce 17 (4096 F32)"
};

}  // namespace moebius
