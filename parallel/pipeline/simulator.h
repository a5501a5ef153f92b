// Plays a plan on a clock: proves that it cannot deadlock, and says how long it takes, where it
// waits and what it keeps.
//
// Sends are a rendezvous: a message travels once its send and its receive have both started, and
// nothing buffers it on the way. Where `sends_in_flight` messages to another stage are untaken, a
// stage waits for the oldest of them before it starts the next, as the executor does. More of them,
// and shorter times, only let a stage go on earlier: a plan that runs to its end with 1 does so
// with any number, and with any times. With 0 a stage waits until the message itself is taken.
#pragma once

#include <vector>

#include "parallel/pipeline/plan.h"

namespace moebius {

// Of one chunk and micro-batch, in any unit.
struct ChunkTimes {
  double forward = 1;
  double input_gradients = 1;
  double weight_gradients = 1;  // backward takes both
};

struct SimulationOptions {
  std::vector<ChunkTimes> times = {};       // by virtual stage; empty: one each
  double latency = 0;                       // of a message, in the same unit
  int sends_in_flight = kMaxSendsInFlight;  // >= 0
  // What weight gradients keep of a stash when input gradients have run: 0 .. 1.
  double weight_share = 0.5;
};

struct TimedAction {
  Action action;  // a computation
  double start = 0;
  double end = 0;
};

struct StageSimulation {
  std::vector<TimedAction> timeline;
  double bubble = 0;        // last end - first start - work
  double peak_stashes = 0;  // in chunks and micro-batches: divide by v for the units of schedule.h
  int peak_received = 0;    // messages that have room here and were not used yet
};

struct Simulation {
  std::vector<StageSimulation> stages;  // [p]
  double makespan = 0;
  double bubble = 0;  // the largest of the stages
};

// Internal if the plan is not legal (legality.h), or if stages wait for each other: the sentence
// names them. REQUIRES: plan.spec is legal.
absl::StatusOr<Simulation> Simulate(const PipelinePlan& plan,
                                    const SimulationOptions& options = {});

}  // namespace moebius
