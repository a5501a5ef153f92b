#include "train/stage_model.h"

#include <utility>

namespace moebius {

std::vector<ValueSpec> StageModel::Boundary(int /*virtual_stage*/, int micro_batch) const {
  const MicroBatch& batch = micro_batches_[micro_batch];
  const int64_t tokens = batch.num_sequences * batch.shard.positions;
  return {{"hidden", model_.policy().compute, {tokens, model_.spec().hidden_size}}};
}

Bundle StageModel::Forward(Tape& tape, int chunk, int micro_batch, Bundle in) {
  Bundle out = model_.Forward(tape, chunk, std::move(in), micro_batches_[micro_batch], step_);
  if (!model_.chunks()[chunk].has_head) return out;
  if (at_end_) at_end_(tape, out["hidden"], micro_batch);
  return {};
}

}  // namespace moebius
