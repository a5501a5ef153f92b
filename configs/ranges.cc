#include "configs/ranges.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "configs/fields.h"

namespace moebius {

namespace {

constexpr double kMaxSteps = 1e9;
constexpr double kMaxBytes = 1LL << 50;
constexpr double kMoreThan0 = std::numeric_limits<double>::min();

constexpr double kMaxRanks = 1 << 20;
constexpr double kMaxFlops = 1e18;
constexpr double kMaxBandwidth = 1e16;

// Every number of a RunConfig but the seeds, of which any is good; then those of a ClusterConfig.
constexpr Range kRanges[] = {
    {"run.threads_per_rank", 0, 4096},
    {"run.deadline_seconds", kMoreThan0, 86400},
    {"run.device_memory_bytes", 0, kMaxBytes},
    {"run.host_memory_bytes", 0, kMaxBytes},
    {"train.num_steps", 1, kMaxSteps},
    {"train.global_batch_size", 1, 1 << 24},
    {"train.micro_batch_size", 1, 65536},
    {"train.sequence_length", 1, 1 << 24},
    {"train.log_interval_steps", 1, kMaxSteps},
    {"train.eval_interval_steps", 0, kMaxSteps},
    {"train.eval_max_tokens_per_domain", 0, kMaxBytes},
    {"train.max_bad_steps", 0, 1e6},
    {"parallel.tensor_size", 1, 65536},
    {"parallel.pipeline_size", 1, 65536},
    {"parallel.context_size", 1, 65536},
    {"parallel.virtual_pipeline_size", 1, 1024},
    {"parallel.expert_size", 1, 65536},
    {"parallel.expert_tensor_size", 1, 65536},
    {"parallel.zero_stage", 0, 3},
    {"parallel.bucket_bytes", 1, 1LL << 40},
    {"parallel.exchange_capacity", 0, 65536},
    {"model.num_layers", 1, 10000},
    {"model.hidden_size", 1, 1 << 20},
    {"model.num_heads", 1, 65536},
    {"model.num_kv_heads", 0, 65536},
    {"model.head_dim", 0, 1 << 20},
    {"model.vocab_size", 0, 1 << 27},
    {"model.ffn_hidden_size", 0, 1 << 22},
    {"model.rope_theta", 1, 1e12},
    {"model.norm_epsilon", kMoreThan0, 1},
    {"model.init_std", kMoreThan0, 10},
    {"model.moe.num_experts", 0, 65536},
    {"model.moe.top_k", 1, 65536},
    {"model.moe.expert_hidden_size", 0, 1 << 22},
    {"model.moe.num_shared_experts", 0, 65536},
    {"model.moe.router.scale", kMoreThan0, 1000},
    {"model.moe.balance.z_loss_weight", 0, 1000},
    {"model.moe.balance.bias_update_rate", 0, 1},
    {"model.moe.balance.loss.weight", kMoreThan0, 1000},
    {"data.held_out_fraction", 0, 0.9},
    {"data.held_out_max_bytes", 0, kMaxBytes},
    {"data.domains.weight", kMoreThan0, 1e9},
    {"data.tokenizer.vocab_size", 300, 1 << 20},
    {"data.tokenizer.training_bytes", 1000, 1LL << 40},
    {"optimizer.peak_lr", kMoreThan0, 100},
    {"optimizer.min_lr_ratio", 0, 1},
    {"optimizer.warmup_steps", 0, kMaxSteps},
    {"optimizer.decay_steps", 0, kMaxSteps},
    {"optimizer.beta1", 0, 1, true},
    {"optimizer.beta2", 0, 1, true},
    {"optimizer.epsilon", kMoreThan0, 1},
    {"optimizer.weight_decay", 0, 100},
    {"optimizer.clip_norm", 0, kMaxSteps},
    {"checkpoint.interval_steps", 0, kMaxSteps},
    {"checkpoint.keep_last", 1, 1e6},
    {"ranks", 1, kMaxRanks},
    {"ranks_per_node", 1, kMaxRanks},
    {"device.memory_bytes", 0, 1LL << 60},
    {"device.fp64_flops", 0, kMaxFlops},
    {"device.fp32_flops", 0, kMaxFlops},
    {"device.bf16_flops", 0, kMaxFlops},
    {"device.memory_bandwidth", 1, kMaxBandwidth},
    {"device.product_efficiency", kMoreThan0, 1},
    {"device.attention_efficiency", kMoreThan0, 1},
    {"device.bandwidth_efficiency", kMoreThan0, 1},
    {"device.op_seconds", 0, 1},
    {"device.reduction_bandwidth", 0, kMaxBandwidth},
    {"device.chunk_elements", 1, 1LL << 40},
    {"device.host_bandwidth", 0, kMaxBandwidth},
    {"device.ops.seconds", 0, 1},
    {"device.ops.seconds_per_flop", 0, 1},
    {"device.ops.seconds_per_byte", 0, 1},
    {"within_node.bandwidth", 1, kMaxBandwidth},
    {"within_node.efficiency", kMoreThan0, 1},
    {"within_node.latency_seconds", 0, 10},
    {"between_nodes.bandwidth", 1, kMaxBandwidth},
    {"between_nodes.efficiency", kMoreThan0, 1},
    {"between_nodes.latency_seconds", 0, 10},
};

}  // namespace

bool Range::Contains(double value) const {
  return value >= min && (below_max ? value < max : value <= max);
}

std::string Range::Describe() const {
  const std::string from =
      min == kMoreThan0 ? "more than 0" : absl::StrCat("at least ", FormatNumber(min));
  return absl::StrCat(from, below_max ? " and less than " : " and at most ", FormatNumber(max));
}

const Range* FindRange(const std::string& path) {
  const std::string name = WithoutIndices(path);
  for (const Range& range : kRanges) {
    if (range.path == name) return &range;
  }
  return nullptr;
}

std::string FormatNumber(double value) { return absl::StrFormat("%.10g", value); }

}  // namespace moebius
