#include "train/planner/cost_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"

namespace moebius {
namespace {

// What one rank sends or receives.
struct Traffic {
  double within = 0;   // bytes, from and to ranks of its node
  double between = 0;  // from and to other nodes
  int steps = 1;       // one after the other
  double reduced = 0;  // bytes that it adds up
};

// Every rank has `own` bytes, and gets those of all n ranks, of which m are on its node.
Traffic Gather(double own, double n, double m) {
  const double nodes = n / m;
  return {.within = (m - 1) * nodes * own, .between = (nodes - 1) * own};
}

Traffic TrafficOf(const Call& call, double n, double m) {
  const auto bytes = static_cast<double>(call.bytes);
  switch (call.collective) {
    case Collective::kAllGather:
      return Gather(bytes, n, m);
    case Collective::kReduceScatter: {
      Traffic traffic = Gather(bytes / n, n, m);  // the same ways, backwards
      traffic.reduced = bytes;
      return traffic;
    }
    case Collective::kAllReduce:
    case Collective::kAllReduceMax: {
      const Traffic half = Gather(bytes / n, n, m);
      return {2 * half.within, 2 * half.between, 2, bytes};
    }
    case Collective::kAllToAllV:  // as many for each rank
      return {.within = bytes * (m - 1) / n, .between = bytes * (n - m) / n};
    case Collective::kBroadcast:
      return {.within = m > 1 ? bytes : 0, .between = n > m ? bytes : 0};
    case Collective::kBarrier:
      return {};
    case Collective::kSend:  // its receiver waits for it
      return {.steps = 0};
    case Collective::kReceive:
      return n == m ? Traffic{.within = bytes} : Traffic{.between = bytes};
  }
  return {};
}

}  // namespace

absl::StatusOr<CostModel> CostModel::Create(const ClusterConfig& cluster,
                                            PrecisionConfig::Compute compute) {
  CostModel model(cluster, compute);
  if (model.peak_flops() > 0) return model;
  return absl::InvalidArgumentError(
      absl::StrCat("precision.compute: ", PrecisionConfig::Compute_Name(compute),
                   " has no peak on the device \"", cluster.device().name(),
                   "\", use another or give the device its peak"));
}

CostModel::CostModel(const ClusterConfig& cluster, PrecisionConfig::Compute compute)
    : cluster_(cluster), compute_(compute) {
  for (const OpConfig& op : cluster_.device().ops()) {
    if (op.compute() == compute) ops_[op.name()] = op;
  }
}

double CostModel::PeakOf(PrecisionConfig::Compute compute) const {
  const DeviceConfig& device = cluster_.device();
  switch (compute) {
    case PrecisionConfig::FP64:
      return device.fp64_flops();
    case PrecisionConfig::FP32:
      return device.fp32_flops();
    case PrecisionConfig::BF16:
      return device.bf16_flops();
  }
  return 0;
}

double CostModel::PeakOf(DType dtype) const {
  const double peak = PeakOf(dtype == DType::kF64   ? PrecisionConfig::FP64
                             : dtype == DType::kF32 ? PrecisionConfig::FP32
                                                    : PrecisionConfig::BF16);
  return peak > 0 ? peak : peak_flops();
}

double CostModel::SecondsOf(const Work& work) const {
  const auto bytes = static_cast<double>(work.bytes);
  if (const auto op = ops_.find(work.op); op != ops_.end()) {
    const OpConfig& measured = op->second;
    return static_cast<double>(work.groups) * measured.seconds() +
           work.flops * measured.seconds_per_flop() + bytes * measured.seconds_per_byte();
  }
  const DeviceConfig& device = cluster_.device();
  if (work.kind == Work::Kind::kTransfer) {
    CHECK_GT(device.host_bandwidth(), 0) << work.op;
    return device.op_seconds() + bytes / (device.bandwidth_efficiency() * device.host_bandwidth());
  }
  const double share = work.kind == Work::Kind::kAttention ? device.attention_efficiency()
                                                           : device.product_efficiency();
  return device.op_seconds() + work.flops / (share * PeakOf(work.dtype)) +
         bytes / (device.bandwidth_efficiency() * device.memory_bandwidth());
}

GroupSpread CostModel::SpreadOf(const std::vector<int>& members, int num_ranks) const {
  const auto size = static_cast<int>(members.size());
  const int stride = size > 1 ? members[1] - members[0] : 1;
  CHECK_EQ(members.back() - members.front(), (size - 1) * stride) << "not a group of a mesh";
  GroupSpread spread{.size = size, .most = 1, .fewest = size};
  for (int first = 0; first < num_ranks; ++first) {
    if (first / stride % size != 0) continue;  // of its group
    for (int member = 0; member < size;) {
      const int begin = member;
      const int node = NodeOf(first + begin * stride);
      while (member < size && NodeOf(first + member * stride) == node) ++member;
      spread.most = std::max(spread.most, member - begin);
      spread.fewest = std::min(spread.fewest, member - begin);
    }
  }
  return spread;
}

ExchangeCost CostModel::CostOf(const Call& call, const GroupSpread& spread) const {
  const Traffic near = TrafficOf(call, spread.size, spread.most);
  const Traffic far = TrafficOf(call, spread.size, spread.fewest);
  const LinkConfig& slowest =
      spread.leaves_node() ? cluster_.between_nodes() : cluster_.within_node();
  const double reduction = cluster_.device().reduction_bandwidth();
  const double fixed =
      near.steps * slowest.latency_seconds() + (reduction > 0 ? near.reduced / reduction : 0);
  ExchangeCost cost;
  if (near.within > 0 || !spread.leaves_node()) {
    cost.within_node = fixed + SecondsOf(cluster_.within_node(), near.within);
  }
  if (spread.leaves_node()) {
    cost.between_nodes = fixed + SecondsOf(cluster_.between_nodes(), far.between);
  }
  return cost;
}

int CostModel::NodeOf(int rank) const { return static_cast<int>(rank / cluster_.ranks_per_node()); }

double CostModel::SecondsOf(const LinkConfig& link, double bytes) const {
  return bytes / (link.efficiency() * link.bandwidth());
}

}  // namespace moebius
