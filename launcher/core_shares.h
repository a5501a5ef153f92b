// How the ranks of a host divide its cores. Pure functions: launcher/ranks.cc asks the system.
#pragma once

#include <optional>
#include <vector>

#include "absl/strings/string_view.h"

namespace moebius {

// A rank's share of the host's cores.
struct RankCores {
  int index = 0;  // of the rank among those of its host
  int num_threads = 1;
  std::vector<int> cores;  // one for each thread; empty: not pinned, there are too few
};

// A rank among those of its host, as the launcher says it.
struct HostRank {
  int index = 0;  // in [0, count)
  int count = 1;
  std::optional<bool> bound = std::nullopt;  // to cores of its own; nothing: the launcher is silent
};

// The share of a rank that may run on the cores `allowed` of a host with `host_cores`: all of them
// where they are the rank's own, else one part of `count` equal ones. A silent launcher has given
// each rank cores of its own if all ranks fit on the host like that. threads_per_rank 0: a thread
// for each core of the share, but at least one.
RankCores CoresOf(const HostRank& rank, const std::vector<int>& allowed, int host_cores,
                  int threads_per_rank);

// Tasks on node number `node` of Slurm's list by node, such as "2(x3),1": 2, 2, 2 and 1. Nothing if
// it is no such list, or shorter.
std::optional<int> TasksOnNode(absl::string_view list, int node);

}  // namespace moebius
