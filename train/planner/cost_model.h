// How long a rank's ops and exchanges take on a described cluster. An op takes
//   seconds + flops / rate + bytes / bandwidth,
// the bandwidth of what moves between a device and its host being that of their link,
// the numbers being the op's own if the cluster file has them, else the device's. An exchange takes
//   latency x steps + the longer of (bytes within the node / its bandwidth, bytes that leave the
//   node / its bandwidth)
// of the bytes that a rank sends, or receives, directly or as its node's share: where a group has m
// ranks on a node and others elsewhere, what is gathered enters the node once, a part through the
// link of each of the m ranks, and goes round within the node. It takes as long for all ranks as
// for the slowest of them, in the group that lies worst on the nodes: nodes need not hold whole
// groups. Immutable, so thread-safe.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "configs/cluster.pb.h"
#include "configs/run.pb.h"
#include "core/base/status.h"
#include "core/tensor/work.h"
#include "parallel/call.h"

namespace moebius {

// Seconds that each of a rank's two links is busy with an exchange, both at once: 0 if it has no
// part in it.
struct ExchangeCost {
  double within_node = 0;
  double between_nodes = 0;

  double seconds() const { return std::max(within_node, between_nodes); }
};

// How the groups of a mesh along some axes lie on the nodes. Each does the same as the others at
// the same time.
struct GroupSpread {
  int size = 1;    // ranks of a group
  int most = 1;    // ranks of a group that share a node: on the node that has most of one,
  int fewest = 1;  // and on the one that has fewest, but some

  bool leaves_node() const { return fewest < size; }
};

class CostModel {
 public:
  // InvalidArgument if the device has no peak for `compute`.
  static absl::StatusOr<CostModel> Create(const ClusterConfig& cluster,
                                          PrecisionConfig::Compute compute);

  double SecondsOf(const Work& work) const;

  // Of the groups of which `members` (ranks of the world) is one. REQUIRES: the members are evenly
  // spaced, as mesh.h has them. O(num_ranks).
  GroupSpread SpreadOf(const std::vector<int>& members, int num_ranks) const;

  // Of `call` in such groups. A message costs its receiver, and as much as between those neighbours
  // of the group that are farthest from each other.
  ExchangeCost CostOf(const Call& call, const GroupSpread& spread) const;

  // Of products in the run's format, FLOP/s.
  double peak_flops() const { return PeakOf(compute_); }
  bool overlaps_exchange() const { return cluster_.overlaps_exchange(); }
  const ClusterConfig& cluster() const { return cluster_; }

 private:
  CostModel(const ClusterConfig& cluster, PrecisionConfig::Compute compute);

  double PeakOf(PrecisionConfig::Compute compute) const;
  double PeakOf(DType dtype) const;
  int NodeOf(int rank) const;
  double SecondsOf(const LinkConfig& link, double bytes) const;

  const ClusterConfig cluster_;
  const PrecisionConfig::Compute compute_;
  std::map<std::string, OpConfig> ops_;  // of this precision
};

}  // namespace moebius
