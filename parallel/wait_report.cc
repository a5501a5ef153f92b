#include "parallel/wait_report.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_join.h"

namespace moebius {
namespace {

constexpr size_t kMaxNamed = 8;  // of the ranks that one wait is for
constexpr size_t kMaxLinks = 8;  // of ranks that wait for one another

std::string Describe(const ShownCall& shown) {
  return absl::StrCat(shown.call.ToString(), " of group ", shown.group);
}

double Milliseconds(int64_t ns) { return static_cast<double>(ns) / 1e6; }

}  // namespace

WaitReport::WaitReport(const Board& board, int rank, std::vector<int> missing)
    : board_(board), rank_(rank), missing_(missing) {
  std::erase_if(missing_, [&](int r) { return WaitsForAnother(r, missing); });
  if (missing_.empty()) missing_ = std::move(missing);  // they wait for each other
  if (missing_.empty()) return;
  Condition worst = Condition::kThere;
  for (const int r : missing_) worst = std::min(worst, ConditionOf(r));
  std::erase_if(missing_, [&](int r) { return ConditionOf(r) != worst; });
}

const RankSight& WaitReport::Look(int rank) const {
  const auto found = sights_.find(rank);
  return found != sights_.end() ? found->second
                                : sights_.emplace(rank, board_.Look(rank)).first->second;
}

WaitReport::Condition WaitReport::ConditionOf(int rank) const {
  if (Look(rank).failed) return Condition::kFailed;
  switch (board_.StateOf(rank)) {
    case ProcessState::kEnded:
      return Condition::kEnded;
    case ProcessState::kStopped:
      return Condition::kStopped;
    default:
      return Condition::kThere;
  }
}

// `rank`, the one that it waits for, and so on: up to one that waits for nobody, or has ended.
std::vector<int> WaitReport::ChainFrom(int rank) const {
  std::vector<int> chain;
  while (std::ranges::find(chain, rank) == chain.end() && chain.size() < kMaxLinks) {
    chain.push_back(rank);
    const std::optional<int> next = Look(rank).waits_for;
    if (!next || ConditionOf(rank) == Condition::kEnded) break;
    rank = *next;
  }
  return chain;
}

bool WaitReport::WaitsForAnother(int rank, const std::vector<int>& ranks) const {
  const std::vector<int> chain = ChainFrom(rank);
  return std::any_of(chain.begin() + 1, chain.end(),
                     [&](int r) { return std::ranges::find(ranks, r) != ranks.end(); });
}

std::optional<int> WaitReport::lost() const {
  for (const int missing : missing_) {
    for (const int r : ChainFrom(missing)) {
      const Condition condition = ConditionOf(r);
      if (condition == Condition::kEnded || condition == Condition::kFailed) return r;
    }
  }
  return std::nullopt;
}

// Of ranks in one condition.
std::string WaitReport::Named(const std::vector<int>& ranks) const {
  if (ranks.empty()) return "nobody";
  const bool one = ranks.size() == 1;
  const auto named = std::span(ranks).first(std::min(ranks.size(), kMaxNamed));
  std::string text = absl::StrCat(one ? "rank " : "ranks ", absl::StrJoin(named, ", "));
  if (named.size() < ranks.size()) absl::StrAppend(&text, " ... ", ranks.back());
  switch (ConditionOf(ranks[0])) {
    case Condition::kEnded:
      return absl::StrCat(text, ", whose ", one ? "process has" : "processes have", " ended");
    case Condition::kStopped:
      return absl::StrCat(text, ", whose ", one ? "process is" : "processes are", " stopped");
    case Condition::kFailed:
      return absl::StrCat(text, Look(ranks[0]).waits_for ? ", which gave up" : ", which failed");
    case Condition::kThere:
      break;
  }
  return text;
}

std::string WaitReport::WhatItDoes(int rank) const {
  const RankSight& sight = Look(rank);
  if (!sight.has_page) return absl::StrCat("rank ", rank, " has shown nothing");
  if (!sight.last) return absl::StrCat("rank ", rank, " has started nothing");
  if (sight.last->state != CallState::kWaiting) {
    return absl::StrCat("rank ", rank, " last started ", Describe(*sight.last));
  }
  const bool there = ConditionOf(rank) == Condition::kThere;
  std::string text =
      absl::StrCat("rank ", rank, there ? " waits in " : " waited in ", Describe(*sight.last));
  if (sight.waits_for) absl::StrAppend(&text, " for ", Named({*sight.waits_for}));
  return text;
}

std::string WaitReport::Sentence(const std::string& title, std::optional<int> also) const {
  std::string text = absl::StrCat(title, ": rank ", rank_, " waits for ", Named(missing_));
  std::vector<int> told = {rank_};
  const auto tell_from = [&](int first) {
    for (const int r : ChainFrom(first)) {
      if (std::ranges::find(told, r) != told.end()) continue;
      told.push_back(r);
      absl::StrAppend(&text, "; ", WhatItDoes(r));
    }
  };
  for (size_t i = 0; i < std::min(missing_.size(), kMaxNamed); ++i) tell_from(missing_[i]);
  if (also && std::ranges::find(told, *also) == told.end()) {
    absl::StrAppend(&text, "; meanwhile: ", Named({*also}));
    tell_from(*also);
  }
  return text;
}

std::vector<std::string> DescribeHistory(const Board& board, int rank) {
  const int64_t now_ns = BoardClockNs();
  const std::vector<ShownCall> calls = board.History(rank);
  std::vector<std::string> lines = {
      absl::StrFormat("the last %d operations of rank %d, oldest first:", calls.size(), rank)};
  for (const ShownCall& shown : calls) {
    const char* state = shown.state == CallState::kStarted   ? "started"
                        : shown.state == CallState::kWaiting ? "waiting"
                                                             : "done";
    lines.push_back(absl::StrFormat("  %6d %-20s %-40s %12d bytes  %-7s  %.3f s ago",
                                    shown.call.order, shown.group, shown.call.ToString(),
                                    shown.call.bytes, state,
                                    Milliseconds(now_ns - shown.started_ns) / 1e3));
    if (shown.state == CallState::kDone) {
      absl::StrAppendFormat(&lines.back(), ", took %.3f ms",
                            Milliseconds(shown.done_ns - shown.started_ns));
    }
  }
  return lines;
}

}  // namespace moebius
