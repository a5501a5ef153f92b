// How the ranks of a host divide its cores. Pure functions: launcher/ranks.cc asks the system.
#pragma once

#include <optional>
#include <vector>

namespace moebius {

// A rank's share of the host's cores.
struct RankCores {
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

}  // namespace moebius
