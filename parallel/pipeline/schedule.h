// Pipeline schedules as data: what each stage computes, in which order, as pure functions of sizes.
//
// The layers are cut into p * v virtual stages, in order; each of the p stages holds v of them, its
// chunks. Letters: p stages, m micro-batches, v chunks of a stage; F, b, W the times of forward,
// input gradients and weight gradients of a whole stage, B = b + W.
//
//   schedule          virtual stage of (stage s, chunk c)   bubble of a step    stashes of stage 0
//   GPipe             s                                     (p - 1)(F + B)      m
//   1F1B              s                                     (p - 1)(F + B)      min(p, m)
//   interleaved 1F1B  c p + s                               (p - 1)(F + B) / v  p + (p - 1) / v
//   ZB-H1             s                                     (p - 1)(F + b - W)  p
//   ZB-V              s, and 2p - 1 - s                     0 where F = b = W   p
//
// Bubble: the longest that a stage waits between its first and its last action. Stashes: what
// micro-batches keep for backward, in units of a stage and a micro-batch, for m >= 2p. The
// simulator's test derives the table again.
//
// In every schedule the forwards of a chunk run in the order of the micro-batches, and so do its
// weight gradients: sums over micro-batches keep their order. Only a parameter that two chunks of
// one stage share (tied embeddings under ZB-V) gets its two sums interleaved as the schedule has
// it.
//
// GPipe: Huang et al., 2019 (arXiv 1811.06965). 1F1B and interleaved: Narayanan et al., 2021 (arXiv
// 2104.04473). ZB-H1 and ZB-V: Qi et al., 2024 (arXiv 2401.10241).
#pragma once

#include <string>
#include <vector>

#include "core/base/status.h"

namespace moebius {

enum class ScheduleKind { kGPipe, k1F1B, kInterleaved1F1B, kZeroBubbleH1, kZeroBubbleV };
const char* NameOf(ScheduleKind kind);  // "ZB-V"

struct PipelineSpec {
  ScheduleKind schedule = ScheduleKind::k1F1B;
  int num_stages = 1;         // p
  int num_chunks = 1;         // v: 1; 2 or more if interleaved; 2 under ZB-V
  int num_micro_batches = 1;  // m: a multiple of p if interleaved; at least p under ZB-H1

  int num_virtual_stages() const { return num_stages * num_chunks; }
};

// InvalidArgument with the rule that is broken. One stage is legal for all.
absl::Status Validate(const PipelineSpec& spec);

// Where a virtual stage lies, and back.
struct ChunkPlace {
  int stage = 0;
  int chunk = 0;
};
ChunkPlace PlaceOf(const PipelineSpec& spec, int virtual_stage);
int VirtualStageOf(const PipelineSpec& spec, ChunkPlace place);

// One thing that a stage does for a chunk and a micro-batch.
struct Action {
  enum class Kind {
    kForward,
    kBackward,         // input and weight gradients at once
    kInputGradients,   // zero bubble: these alone; the weight gradients come later
    kWeightGradients,  // those that kInputGradients has left
    // Messages to and from the stages of the neighbouring virtual stages: what the chunk has
    // computed, or will need.
    kSendActivation,
    kReceiveActivation,
    kSendGradient,
    kReceiveGradient,
  };
  Kind kind = Kind::kForward;
  int chunk = 0;
  int micro_batch = 0;

  bool operator==(const Action&) const = default;
  auto operator<=>(const Action&) const = default;
  std::string ToString() const;  // "forward of micro-batch 3, chunk 0"
};

// What `stage` computes, in order; without messages (plan.h adds them).
// REQUIRES: Validate(spec) is OK.
std::vector<Action> ComputeActions(const PipelineSpec& spec, int stage);

}  // namespace moebius
