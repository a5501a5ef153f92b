// What a person sees while a run goes on.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "train/metrics/metrics.h"

namespace moebius {

std::string FormatDuration(double seconds);    // "2:11:05", "0:42"
std::string FormatBytes(int64_t bytes);        // "1.50 GiB"
std::string FormatWithCommas(int64_t number);  // "158,900"

// One line a logged step.
class StepConsole {
 public:
  explicit StepConsole(int64_t num_steps) : num_steps_(num_steps) {}

  // "step 1200/20000 | loss 3.1416 | ... | left 2:11:05", without a line end. The time left is that
  // of the remaining steps at the pace of the latest ones.
  std::string Line(const StepMetrics& metrics);

 private:
  const int64_t num_steps_;
  double pace_ms_ = 0;  // of a step, averaged with more weight on later records; 0: none yet
};

// A bar for a long piece of work, redrawn in place on standard error. Silent if that is not a
// terminal.
class ProgressBar {
 public:
  // `total` in bytes.
  ProgressBar(std::string label, int64_t total);
  ~ProgressBar();  // ends the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Update(int64_t done);

  // "tokenize [#####-----]  50%  1.50 GiB  left 0:42"
  static std::string Draw(const std::string& label, int64_t done, int64_t total, double seconds);

 private:
  using Clock = std::chrono::steady_clock;

  const std::string label_;
  const int64_t total_;
  const bool is_terminal_;
  const Clock::time_point start_;
  Clock::time_point drawn_;
};

}  // namespace moebius
