#include "train/planner/cost_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

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
    case Collective::kReceive:
      return {.steps = 0};
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
  const double share = work.kind == Work::Kind::kAttention ? device.attention_efficiency()
                                                           : device.product_efficiency();
  return device.op_seconds() + work.flops / (share * PeakOf(work.dtype)) +
         bytes / (device.bandwidth_efficiency() * device.memory_bandwidth());
}

ExchangeCost CostModel::CostOf(const Call& call, const std::vector<int>& members, int rank) const {
  if (call.collective == Collective::kReceive) {
    const double seconds = SecondsOfMessage(static_cast<double>(call.bytes), call.root, rank);
    return NodeOf(call.root) == NodeOf(rank) ? ExchangeCost{.within_node = seconds}
                                             : ExchangeCost{.between_nodes = seconds};
  }
  const int node = NodeOf(rank);
  const auto here =
      std::ranges::count_if(members, [&](int member) { return NodeOf(member) == node; });
  const auto size = std::ssize(members);
  const bool leaves_node = size > here;
  const Traffic traffic = TrafficOf(call, static_cast<double>(size), static_cast<double>(here));
  const LinkConfig& slowest = leaves_node ? cluster_.between_nodes() : cluster_.within_node();
  const double reduction = cluster_.device().reduction_bandwidth();
  const double fixed =
      traffic.steps * slowest.latency_seconds() + (reduction > 0 ? traffic.reduced / reduction : 0);
  ExchangeCost cost;
  if (traffic.within > 0 || !leaves_node) {
    cost.within_node = fixed + SecondsOf(cluster_.within_node(), traffic.within);
  }
  if (leaves_node) {
    cost.between_nodes = fixed + SecondsOf(cluster_.between_nodes(), traffic.between);
  }
  return cost;
}

double CostModel::SecondsOfMessage(double bytes, int from, int to) const {
  const LinkConfig& link =
      NodeOf(from) == NodeOf(to) ? cluster_.within_node() : cluster_.between_nodes();
  return link.latency_seconds() + SecondsOf(link, bytes);
}

int CostModel::NodeOf(int rank) const { return static_cast<int>(rank / cluster_.ranks_per_node()); }

double CostModel::SecondsOf(const LinkConfig& link, double bytes) const {
  return bytes / (link.efficiency() * link.bandwidth());
}

}  // namespace moebius
