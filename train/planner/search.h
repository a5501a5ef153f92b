// Which layout trains a model fastest on a cluster: legal layouts, each planned by a dry run, those
// that do not fit the device left out.
//
// Sizes of axes are tried all, each with the first policy that fits (from none to full recompute,
// from whole to sharded parameters), one sequence a micro-batch. Around the best of them schedules,
// virtual stages, micro-batch sizes, recompute and ZeRO stages are varied one at a time, for as
// long as that helps. layout_space.h says what is tried, and what is kept because results depend on
// it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "train/planner/cost_model.h"
#include "train/planner/layout_space.h"
#include "train/planner/step_time.h"

namespace moebius {

struct SearchOptions {
  int keep = 10;        // layouts to return
  int refine = 12;      // sizes of axes whose policies are varied
  int num_threads = 1;  // that plan
};

struct Candidate {
  RunConfig config;  // its `parallel` and train.micro_batch_size are those of the layout
  StepPlan plan;
};

// Legal layouts that could not be planned, for another reason than too little memory.
struct SearchFailure {
  std::string reason;
  int64_t count = 0;    // layouts
  std::string example;  // OverridesOf one of them

  std::string ToString() const;  // "2 layouts could not be planned: ..."
};

struct SearchResult {
  std::vector<Candidate> best = {};  // most tokens a second first
  int64_t num_legal = 0;             // sizes of axes that the rules allow
  int64_t num_fitting = 0;           // of these, those that fit under some policy
  int64_t num_planned = 0;           // dry runs
  KeptByLayouts kept = {};
  std::vector<SearchFailure> failures = {};
};

// `config` gives everything but the layout; its results are those of every candidate. Equal inputs
// give equal results, whatever the number of threads. InvalidArgument if no layout works, with the
// smallest peak that was found and the failures; or as LayoutSpace::Create.
absl::StatusOr<SearchResult> SearchLayouts(const RunConfig& config, int64_t tokenizer_vocab_size,
                                           int num_ranks, const CostModel& cost,
                                           const SearchOptions& options = {});

}  // namespace moebius
