#include "train/planner/op_timer.h"

#include <algorithm>

namespace moebius {

void OpTimer::Observe(const Work& work) {
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
  seconds_[*running_].push_back(time.count());
  running_.reset();
}

void OpTimer::Clear() {
  running_.reset();
  seconds_.clear();
}

std::map<std::string, std::vector<OpSample>> OpTimer::Samples() const {
  constexpr double kShortest = 1e-9;
  std::map<std::string, std::vector<OpSample>> samples;
  for (const auto& [shape, times] : seconds_) {
    std::vector<double> sorted = times;
    std::ranges::nth_element(sorted, sorted.begin() + std::ssize(sorted) / 2);
    const double median = sorted[sorted.size() / 2];
    samples[shape.op].push_back(
        {shape.groups, shape.flops, shape.bytes, std::max(median, kShortest)});
  }
  return samples;
}

}  // namespace moebius
