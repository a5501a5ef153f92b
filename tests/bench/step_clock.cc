#include "tests/bench/step_clock.h"

#include <string_view>

namespace moebius {
namespace {

constexpr std::string_view kUpdate = "adamw";

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

StepClock::Clock::time_point StepClock::Now() {
  if (accelerator_ != nullptr) accelerator_->Wait();
  return Clock::now();
}

void StepClock::Start(Times what) {
  running_ = what;
  op_ = nullptr;
  update_begin_.reset();
  if (IsWatching()) update_bytes_ = 0;
  step_begin_ = Now();
}

StepSeconds StepClock::Stop() {
  const auto now = Now();
  EndOp(now);
  running_.reset();
  return {.step = Seconds(now - step_begin_),
          .update = update_begin_ ? Seconds(now - *update_begin_) : 0};
}

void StepClock::OpBegins(const Work& work) {
  if (!IsWatching()) return;
  const bool is_update = work.op == kUpdate;
  if (is_update) update_bytes_ += static_cast<double>(work.bytes);
  const bool update_begins = is_update && !update_begin_;
  if (!update_begins && running_ != Times::kStepAndOps) return;
  const auto now = Now();
  if (update_begins) update_begin_ = now;
  if (running_ == Times::kStepAndOps) BeginOp(work, now);
}

void StepClock::BeginOp(const Work& work, Clock::time_point now) {
  EndOp(now);
  const auto bytes = static_cast<double>(work.bytes);
  op_ = &ops_[work.op];
  op_begin_ = now;
  ++op_->calls;
  op_->flops += work.flops;
  op_->bytes += bytes;
  op_->least_seconds += limits_.Seconds(work.flops, bytes, work.dtype);
}

void StepClock::EndOp(Clock::time_point now) {
  if (op_ != nullptr) op_->seconds += Seconds(now - op_begin_);
}

}  // namespace moebius
