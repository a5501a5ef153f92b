#include "tests/bench/step_clock.h"

#include <string_view>

namespace moebius {
namespace {

constexpr std::string_view kUpdate = "adamw";

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

void StepClock::Start() {
  running_ = true;
  op_ = nullptr;
  update_begin_.reset();
  update_bytes_ = 0;
  step_begin_ = Clock::now();
}

StepSeconds StepClock::Stop() {
  const auto now = Clock::now();
  EndOp(now);
  running_ = false;
  return {.step = Seconds(now - step_begin_),
          .update = update_begin_ ? Seconds(now - *update_begin_) : 0};
}

void StepClock::OpBegins(const Work& work) {
  if (!running_) return;
  const auto now = Clock::now();
  EndOp(now);
  const auto bytes = static_cast<double>(work.bytes);
  op_ = &ops_[work.op];
  op_begin_ = now;
  ++op_->calls;
  op_->flops += work.flops;
  op_->bytes += bytes;
  op_->least_seconds += limits_.Seconds(work.flops, bytes, work.dtype);
  if (work.op == kUpdate) {
    if (!update_begin_) update_begin_ = now;
    update_bytes_ += bytes;
  }
}

void StepClock::EndOp(Clock::time_point now) {
  if (op_ != nullptr) op_->seconds += Seconds(now - op_begin_);
}

}  // namespace moebius
