// What a board tells about a wait that takes long: who is missing, what they do instead, and
// whether they will ever come. And what a rank did last.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "parallel/board.h"

namespace moebius {

// One look at the ranks that `rank` waits for, and at those that these wait for in turn.
class WaitReport {
 public:
  // `missing`: the ranks of the world without which the operation of `rank` cannot go on.
  WaitReport(const Board& board, int rank, std::vector<int> missing);

  // The missing ranks without those that only wait for another of them; and if some have ended or
  // are stopped, only these.
  const std::vector<int>& missing() const { return missing_; }

  // A rank that this one waits for, be it through others, and that is gone: its process has ended,
  // or it has failed.
  std::optional<int> lost() const;

  // "group data, all-reduce 17 (4096 F32): rank 0 waits for rank 2, whose process has ended; rank 2
  // last started all-reduce 16 (4096 F32) of group data". `title` names the operation; `also`: a
  // rank to tell about, whoever waits for it.
  std::string Sentence(const std::string& title, std::optional<int> also = std::nullopt) const;

 private:
  enum class Condition { kEnded, kStopped, kFailed, kThere };  // the worst first

  const RankSight& Look(int rank) const;
  Condition ConditionOf(int rank) const;
  std::vector<int> ChainFrom(int rank) const;
  bool WaitsForAnother(int rank, const std::vector<int>& ranks) const;
  std::string Named(const std::vector<int>& ranks) const;
  std::string WhatItDoes(int rank) const;

  const Board& board_;
  const int rank_;
  mutable std::map<int, RankSight> sights_;
  std::vector<int> missing_;
};

// The last calls of `rank`, one a line, oldest first, under a line that says so. For the rank's
// own process, any thread.
std::vector<std::string> DescribeHistory(const Board& board, int rank);

}  // namespace moebius
