// This machine as a cluster file describes one, measured: real training steps of small models whose
// ops are timed one by one, and exchanges between ranks that are threads. What each rank reaches
// while the others compute too. Machines change their speed, so a prediction is worth comparing
// only with steps of the same minute.
#pragma once

#include "configs/cluster.pb.h"
#include "configs/run.pb.h"
#include "core/base/status.h"

namespace moebius {

struct CalibrationOptions {
  PrecisionConfig::Compute compute = PrecisionConfig::FP32;
  int num_ranks = 1;
  int threads_per_rank = 0;  // 0: the machine's cores, divided by the ranks
};

// All ranks on one node. A few seconds. More ranks than cores are measured as many as there are
// cores.
absl::StatusOr<ClusterConfig> Calibrate(const CalibrationOptions& options);

}  // namespace moebius
