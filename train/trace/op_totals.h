// Where the time of traced steps went, by op: what a developer looks at first.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "train/trace/trace_recorder.h"

namespace moebius {

struct OpTotal {
  int64_t calls = 0;
  int64_t own_ns = 0;  // without what it calls, where that is on record itself
  double flops = 0;
  double bytes = 0;
};

struct StepTotals {
  int64_t num_steps = 0;  // of all ranks together
  int64_t steps_ns = 0;
  int64_t num_left_out = 0;                 // events
  std::map<std::string, OpTotal> ops = {};  // "linear"; "wait all-reduce", "start all-reduce"
};

// The name of an event in traces and tables.
std::string NameOf(const TraceEvent& event);

StepTotals TotalsOf(const TraceRecorder& recorder);
void AddTo(StepTotals& sum, const StepTotals& other);

// As text, for another rank.
std::string Encode(const StepTotals& totals);
StepTotals Decode(const std::string& text);

// Lines under a head: op, calls, total ms, share of the steps, GFLOP/s or else GB/s, by time. The
// last ones are what is not listed, and the time between ops.
std::vector<std::string> Table(const StepTotals& totals);

}  // namespace moebius
