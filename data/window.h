// A stretch of a shard as a sample.
#pragma once

#include "data/batch.h"
#include "data/shard.h"

namespace moebius {

// Tokens [begin, begin + S) of the shard and their followers. What has no follower in the shard is
// padding. REQUIRES: begin is inside the shard.
Sample ReadWindow(const Shard& shard, int64_t begin, int64_t sequence_length);

// The same on a ring: the shard's first token follows its last one, so nothing is padding.
// REQUIRES: begin is inside the shard, which has at least S + 1 tokens.
Sample ReadRingWindow(const Shard& shard, int64_t begin, int64_t sequence_length);

}  // namespace moebius
