// Scores tokens and chooses their experts. Whatever the rule, the answer is one RoutingPlan.
#pragma once

#include <string>

#include "core/tape/tape.h"
#include "kernels/routing_plan.h"
#include "model/inputs.h"
#include "model/parameter_store.h"
#include "model/spec.h"

namespace moebius {

class Router {
 public:
  Router(const ModelSpec& spec, const std::string& prefix, ParameterStore& store, DType dtype);

  struct Scores {
    Var logits;  // [T, E] in the router's dtype
    Var scores;  // [T, E]
  };
  Scores Score(Tape& tape, const Var& x) const;

  // Top-k of scores + bias by token; padding has no expert. Ties go to the lower expert.
  RoutingPlan Select(const Tensor& scores, const Tensor& bias, const MicroBatch& batch,
                     const StepInputs& step, Context& context) const;

  // How near the closest of these choices was.  [1] F64
  Tensor Margin(const Tensor& scores, const Tensor& bias, const MicroBatch& batch,
                Context& context) const;

  // How the names of the layer's parameters begin.
  const std::string& prefix() const { return prefix_; }

  // The weight of each pair: its score, perhaps renormalised over the token's experts.  [P]
  Var Weigh(Tape& tape, const Var& scores, const RoutingPlan& plan) const;

 private:
  RoutingPlan Forced(const MicroBatch& batch, const StepInputs& step, Context& context) const;

  const MoeSpec& spec_;
  const std::string prefix_;
  const DType dtype_;
  Parameter* weight_;  // [E, D]
};

}  // namespace moebius
