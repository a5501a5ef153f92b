// One outcome for all ranks.
#pragma once

#include "core/base/status.h"
#include "parallel/communicator.h"

namespace moebius {

// The status of the lowest rank that failed, on every rank; OK if none did. So that nobody goes on
// to wait for a rank that has given up. The message of another rank than the first begins with
// "rank N: ". All ranks call it together.
absl::Status Agree(Communicator& world, const absl::Status& mine);

}  // namespace moebius
