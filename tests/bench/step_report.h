// What the benchmark of whole steps measured, as JSON and as text.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/bench/machine.h"
#include "tests/bench/step_clock.h"

namespace moebius {

struct StepMeasurement {
  std::string config, precision, device;
  DType compute = DType::kF32;
  int ranks = 1, threads_per_rank = 1;
  Limits limits;  // of all ranks together, computing at once

  double tokens = 0;  // of one step
  double flops = 0;   // of one step: 3 x ModelSpec::ForwardFlopsPerToken x tokens

  // Of the slowest rank, step by step.
  std::vector<double> step_seconds;
  std::vector<double> before_update_seconds;  // without the update; an accelerator's: other steps
  // The update alone, over and over.
  std::vector<double> update_seconds;
  double update_bytes = 0;  // of all ranks: value, moments read and written, gradients read

  // The most that a rank has held at any moment.
  double device_peak_bytes = 0, host_peak_bytes = 0;

  // Of the first rank, all steps together whose ops were timed, and the seconds of each of these.
  std::map<std::string, TimedOp> ops;
  std::vector<double> ops_seconds;

  double peak_flops() const { return limits.flops(compute); }
};

nlohmann::ordered_json StepJson(const StepMeasurement& measured);
std::string StepText(const StepMeasurement& measured);

}  // namespace moebius
