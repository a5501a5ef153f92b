#include "train/trace/trace_recorder.h"

#include <algorithm>
#include <chrono>

#include "core/base/check.h"

namespace moebius {

int64_t SteadyClockNs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

void TraceRecorder::BeginStep(int64_t step) {
  CHECK(!in_step_);
  events_.reserve(static_cast<size_t>(max_events_));
  in_step_ = true;
  Begin(TracedStep{step});
}

void TraceRecorder::EndStep() {
  CHECK(in_step_ && open_.size() == 1) << "a step ends with all that it holds";
  End();
  in_step_ = false;
}

void TraceRecorder::Clear() {
  CHECK(!in_step_);
  events_ = {};
  under_way_.clear();
  num_left_out_ = 0;
}

void TraceRecorder::StartBegins(const Pending& operation) {
  if (!in_step_) return;
  TracedCall call{.group_idx = GroupIndex(operation.group()), .call = operation.call()};
  const int64_t under_way = Add(call);
  if (under_way != kLeftOut) under_way_.emplace_back(call.call.order, under_way);
  call.part = TracedCall::Part::kStart;
  Begin(call);
}

void TraceRecorder::WaitBegins(const Pending& operation) {
  if (!in_step_) return;
  Begin(TracedCall{.part = TracedCall::Part::kWait,
                   .group_idx = GroupIndex(operation.group()),
                   .call = operation.call()});
}

void TraceRecorder::Done(const Pending& operation) {
  const auto found =
      std::ranges::find(under_way_, operation.call().order, &std::pair<int64_t, int64_t>::first);
  if (found == under_way_.end()) return;
  events_[found->second].end_ns = clock_();
  under_way_.erase(found);
}

int64_t TraceRecorder::Add(const TraceEvent::What& what) {
  if (std::ssize(events_) >= max_events_) {
    ++num_left_out_;
    return kLeftOut;
  }
  const int64_t now = clock_();
  events_.push_back({.what = what, .begin_ns = now, .end_ns = now - 1});
  return std::ssize(events_) - 1;
}

void TraceRecorder::Begin(const TraceEvent::What& what) {
  if (in_step_) open_.push_back(Add(what));
}

void TraceRecorder::End() {
  if (!in_step_) return;
  const int64_t index = open_.back();
  open_.pop_back();
  if (index == kLeftOut) return;
  TraceEvent& event = events_[index];
  event.end_ns = clock_();
  if (!open_.empty() && open_.back() != kLeftOut) {
    events_[open_.back()].nested_ns += event.duration_ns();
  }
}

int TraceRecorder::GroupIndex(const std::string& group) {
  const auto index = static_cast<int>(std::ranges::find(groups_, group) - groups_.begin());
  if (index == std::ssize(groups_)) groups_.push_back(group);
  return index;
}

TraceRecorder* TraceRecorders::Of(int rank) {
  const std::lock_guard lock(mutex_);
  auto& recorder = recorders_[rank];
  if (recorder == nullptr) recorder = std::make_unique<TraceRecorder>();
  return recorder.get();
}

}  // namespace moebius
