#include "train/planner/op_timer.h"

#include <algorithm>

namespace moebius {

void OpTimer::OpBegins(const Work& work) {
  Stop();
  running_ = Shape{.op = work.op,
                   .groups = static_cast<double>(work.groups),
                   .flops = work.flops,
                   .bytes = static_cast<double>(work.bytes)};
  started_ = Clock::now();
}

void OpTimer::Stop() {
  if (!running_) return;
  const std::chrono::duration<double> time = Clock::now() - started_;
  Time& sum = times_[*running_];
  sum.seconds += time.count();
  ++sum.count;
  running_.reset();
}

void OpTimer::Clear() {
  running_.reset();
  times_.clear();
}

std::map<std::string, std::vector<OpSample>> OpTimer::Samples() const {
  constexpr double kShortest = 1e-9;
  std::map<std::string, std::vector<OpSample>> samples;
  for (const auto& [shape, time] : times_) {
    const double mean = time.seconds / static_cast<double>(time.count);
    samples[shape.op].push_back(
        {shape.groups, shape.flops, shape.bytes, std::max(mean, kShortest)});
  }
  return samples;
}

}  // namespace moebius
