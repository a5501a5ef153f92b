// A stretch of a shard as a sample.
#pragma once

#include "data/batch.h"
#include "data/shard.h"

namespace moebius {

// Tokens [begin, begin + S) of the shard and their followers. What has no follower in the shard is
// padding. REQUIRES: begin is inside the shard.
Sample ReadWindow(const Shard& shard, int64_t begin, int64_t sequence_length);

}  // namespace moebius
