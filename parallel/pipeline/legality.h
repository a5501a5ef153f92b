// Whether a plan is a whole step in a possible order: every stage computes each chunk of each
// micro-batch exactly once, after what it depends on, receives what it needs before it needs it,
// sends what it has computed; and the messages from one stage to another are received in the order
// in which they are sent. That nobody waits for ever is left to the simulator.
#pragma once

#include "parallel/pipeline/plan.h"

namespace moebius {

// Internal, naming stage and action, if not. REQUIRES: plan.spec is legal.
absl::Status CheckLegal(const PipelinePlan& plan);

}  // namespace moebius
