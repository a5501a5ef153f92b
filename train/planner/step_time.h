// The simulated time of a training step: a dry run of one rank of each pipeline stage on a clock,
// and the stages' times in the pipeline's simulator. Models, buckets, schedules and the order of
// calls are those that train.
#pragma once

#include <cstdint>
#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "parallel/pipeline/simulator.h"
#include "train/planner/cost_model.h"
#include "train/planner/dry_run.h"
#include "train/planner/stage_clock.h"

namespace moebius {

// Of the first rank of a stage. On a device whose memory is its host's, as on CPUs, what the host
// tier has is counted as the device's.
struct StagePlan {
  RankMemory memory = {};
  RankTime micro_batches = {};  // forward and backward of all
  RankTime rest = {};           // reductions, norm, update, gathering; forwards that only count
  double bubble = 0;            // waits for other stages
  OpTimes ops = {};             // of the whole step: their seconds are those of both together

  int64_t bytes() const { return memory.peak + memory.scratch; }  // of the device
};

struct StepPlan {
  double seconds = 0;
  double tokens = 0;       // of the global batch
  double model_flops = 0;  // 3 x ModelSpec::ForwardFlopsPerToken x tokens: recompute does not count
  double peak_flops = 0;   // of one rank
  int num_ranks = 1;
  std::vector<StagePlan> stages = {};
  Simulation timeline = {};  // of the training plan
  int fullest_stage = 0;
  int slowest_stage = 0;  // the one with the most work

  double tokens_per_second() const { return tokens / seconds; }
  double flops_per_rank() const { return model_flops / seconds / num_ranks; }  // FLOP/s
  double mfu() const { return flops_per_rank() / peak_flops; }
  int64_t peak_bytes() const { return stages[fullest_stage].bytes(); }
  int64_t host_bytes() const;  // of the rank that has most
};

struct PlanOptions {
  // Fewer micro-batches run dry, and of stages that have alike layers only the first, which keeps
  // the most of them, for all.
  bool is_quick = false;
};

// REQUIRES: the config is valid for so many ranks. InvalidArgument names the field that does not
// fit.
absl::StatusOr<StepPlan> PlanStep(const RunConfig& config, int64_t tokenizer_vocab_size,
                                  int num_ranks, const CostModel& cost,
                                  const PlanOptions& options = {});

}  // namespace moebius
