// Held-out text in order: windows that predict every token of a shard once, except its first.
#pragma once

#include "data/batch.h"
#include "data/shard.h"

namespace moebius {

class HeldOutStream {
 public:
  // The shard outlives the stream.
  HeldOutStream(const Shard& shard, int64_t sequence_length)
      : shard_(shard), sequence_length_(sequence_length) {}

  int64_t num_predicted() const { return shard_.num_tokens() > 0 ? shard_.num_tokens() - 1 : 0; }
  int64_t num_samples() const {
    return (num_predicted() + sequence_length_ - 1) / sequence_length_;
  }
  Sample Get(int64_t sample) const;  // the last one may end in padding

 private:
  const Shard& shard_;
  const int64_t sequence_length_;
};

}  // namespace moebius
