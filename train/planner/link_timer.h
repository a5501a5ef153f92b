// Exchanges between the ranks of a group, measured.
#pragma once

#include "configs/cluster.pb.h"
#include "parallel/communicator.h"

namespace moebius {

struct LinkRates {
  double latency_seconds = 0;
  double bandwidth = 0;            // bytes a second from one rank to another
  double reduction_bandwidth = 0;  // bytes a second that a rank adds up; 0: as fast as they arrive
};

// All ranks call it together; about 0.1 s. REQUIRES: at least two ranks.
LinkRates MeasureLink(Communicator& communicator);

}  // namespace moebius
