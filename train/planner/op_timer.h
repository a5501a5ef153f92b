// Times ops where they really run: an op lasts until the next one begins, so its share of
// everything around it (tape, allocation) counts too.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/work.h"
#include "train/planner/op_fit.h"

namespace moebius {

class OpTimer final : public WorkObserver {
 public:
  void OpBegins(const Work& work) override;
  void Stop();   // ends the last op; before anything that is no op
  void Clear();  // forgets everything: a warm-up is over

  // By name of the op. What ran several times alike is one sample, of its mean time: what others
  // take of the machine counts, as it does in a step.
  std::map<std::string, std::vector<OpSample>> Samples() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Shape {
    std::string op;
    double groups = 1, flops = 0, bytes = 0;
    auto operator<=>(const Shape&) const = default;
  };

  struct Time {
    double seconds = 0;
    int64_t count = 0;
  };

  std::optional<Shape> running_;
  Clock::time_point started_;
  std::map<Shape, Time> times_;
};

}  // namespace moebius
