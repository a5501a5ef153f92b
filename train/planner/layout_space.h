// The layouts that a search may try for a config: they change what a step costs, never what it
// trains.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"

namespace moebius {

// What results depend on (docs/parity.md), so that every layout has it from the config. 0: nothing.
struct KeptByLayouts {
  int64_t micro_batch_size = 0;   // for balance losses with scope MICRO_BATCH
  int64_t num_micro_batches = 0;  // of a rank, for those with global_counts RUNNING
};

class LayoutSpace {
 public:
  // Of `config`, which outlives it, on nodes of `ranks_per_node`. InvalidArgument if layouts must
  // keep the number of micro-batches, and the config's own layout does not say it for so many
  // ranks.
  static absl::StatusOr<LayoutSpace> Create(const RunConfig& config, int num_ranks,
                                            int64_t ranks_per_node);

  const KeptByLayouts& kept() const { return kept_; }

  // Sizes of axes, each under 1F1B with one sequence a micro-batch, if that is free. Left out:
  // tensor and expert-tensor groups that span nodes.
  std::vector<RunConfig> LegalAxes() const;

  // Sizes of axes under every policy against too little memory, from the fastest on: from none to
  // full recompute, from whole to sharded parameters.
  static std::vector<RunConfig> WithPolicies(const RunConfig& axes);

  // Layouts with one thing changed, legal or not: micro-batch size, schedule with virtual stages,
  // or policy.
  std::vector<RunConfig> NeighboursOf(const RunConfig& layout) const;

  // InvalidArgument with the rule that is broken.
  absl::Status Check(const RunConfig& layout) const;

  // Why the ranks cannot all have whole replicas of the model, each its part of the batch.
  absl::Status CheckDataParallel() const;

 private:
  LayoutSpace(const RunConfig& config, int num_ranks, int64_t ranks_per_node)
      : config_(config), num_ranks_(num_ranks), ranks_per_node_(ranks_per_node) {}

  bool SpanNodes(int size) const;
  RunConfig WithAxes(const ParallelConfig& sizes) const;

  const RunConfig& config_;
  const int num_ranks_;
  const int64_t ranks_per_node_;
  KeptByLayouts kept_;
};

// "--set parallel.tensor_size=1 ...": what chooses a layout on the command line.
std::string OverridesOf(const RunConfig& layout);

}  // namespace moebius
