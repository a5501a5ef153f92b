// Where a choice of experts can be watched, or replaced by that of another run ("router replay").
//
// A hook is called behind every choice of a step's training and counting passes: for each MoE layer
// and micro-batch once, on the rank's thread; recompute meets its first answer again. It sees what
// the router saw, and the plan that it answers with is followed in place of the router's. Weights
// of pairs and losses are computed from this run's scores as ever.
//
// Tokens bear the names that they have in every layout (batch.shard.token_index), so choices that
// were recorded on one rank can be replayed on any number of ranks, and at any micro-batch size.
#pragma once

#include <functional>
#include <string>

#include "core/tensor/context.h"
#include "kernels/routing_plan.h"

namespace moebius {

struct MicroBatch;
enum class Pass;

// T tokens of the shard, width D, E experts.
struct Selection {
  const std::string& layer;  // how the names of its parameters begin: "layers.3.moe."
  const MicroBatch& batch;
  Pass pass;                // training or counting
  Tensor x;                 // [T, D]: what the router sees
  Tensor scores;            // [T, E] F32 or F64
  Tensor bias = {};         // [E], added to the scores for the choice; undefined: none
  const RoutingPlan& plan;  // the router's own choice
};

// Answers with a plan of the same tokens and experts (kernels::BuildPlan makes one).
using SelectionHook = std::function<RoutingPlan(const Selection& selection, Context& context)>;

}  // namespace moebius
