#include "parallel/board.h"

#include <algorithm>
#include <chrono>

#include "core/base/check.h"
#include "parallel/board_page.h"

namespace moebius {
int64_t BoardClockNs() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

void Board::Publish(int rank, int group, const std::string& group_name, const Call& call) {
  CHECK(0 <= group && group < kMaxGroups) << "too many groups";
  const auto page = PageOf(rank);
  Page::Group& shown = page->groups[group];
  shown.SetName(group_name);
  page->calls[call.order % kHistory].Store(group, call, BoardClockNs());
  if (!call.is_message()) shown.latest = call.sequence;
}

void Board::SetWaiting(int rank, const Call& call) {
  if (CallSlot* slot = PageOf(rank)->Find(call.order)) slot->SetWaiting();
}

void Board::SetDone(int rank, const Call& call) {
  if (CallSlot* slot = PageOf(rank)->Find(call.order)) slot->SetDone(BoardClockNs());
}

void Board::SetWaitsFor(int rank, std::optional<int> other) {
  PageOf(rank)->waits_for = other ? *other + 1 : 0;
}

void Board::SetFailed(int rank) { PageOf(rank)->failed = 1; }

void Board::SetReported(int rank) {
  SetFailed(rank);
  PageOf(rank)->reported = 1;
}

int64_t Board::Latest(int rank, int group) const {
  const auto page = PageOf(rank);
  return page == nullptr ? 0 : page->groups[group].latest.load();
}

std::optional<Call> Board::At(int rank, int group, int64_t sequence) const {
  const auto page = PageOf(rank);
  if (page == nullptr || page->groups[group].latest < sequence) return std::nullopt;
  for (const CallSlot& slot : page->calls) {
    const auto content = slot.Load();
    if (!content || content->group != group) continue;
    const Call& call = content->shown.call;
    if (call.sequence == sequence && !call.is_message()) return call;
  }
  return std::nullopt;
}

std::vector<ShownCall> Board::History(int rank) const {
  std::vector<ShownCall> calls;
  const auto page = PageOf(rank);
  if (page == nullptr) return calls;
  for (const CallSlot& slot : page->calls) {
    auto content = slot.Load();
    if (!content) continue;
    content->shown.group = page->groups[content->group].Name();
    calls.push_back(std::move(content->shown));
  }
  std::ranges::sort(calls, {}, [](const ShownCall& shown) { return shown.call.order; });
  return calls;
}

RankSight Board::Look(int rank) const {
  RankSight sight;
  const auto page = PageOf(rank);
  if (page == nullptr) return sight;
  sight.has_page = true;
  sight.failed = page->failed != 0;
  sight.reported = page->reported != 0;
  if (const int64_t other = page->waits_for) sight.waits_for = static_cast<int>(other - 1);
  const std::vector<ShownCall> calls = History(rank);
  if (calls.empty()) return sight;
  const auto waiting = std::ranges::find(calls, CallState::kWaiting, &ShownCall::state);
  sight.last = waiting != calls.end() ? *waiting : calls.back();
  return sight;
}

}  // namespace moebius
