#include "launcher/core_shares.h"

#include <algorithm>

namespace moebius {
namespace {

// Rank `index` of `count` that share `cores`.
RankCores ShareOf(const std::vector<int>& cores, int index, int count, int threads_per_rank) {
  const int available = static_cast<int>(cores.size());
  const int share = std::max(available / count, 1);
  RankCores result{.num_threads = threads_per_rank > 0 ? threads_per_rank : share, .cores = {}};
  if (result.num_threads > share || share * count > available) return result;
  const auto first = cores.begin() + index * share;
  result.cores.assign(first, first + result.num_threads);
  return result;
}

}  // namespace

RankCores CoresOf(const HostRank& rank, const std::vector<int>& allowed, int host_cores,
                  int threads_per_rank) {
  const bool fit = static_cast<int>(allowed.size()) * rank.count <= host_cores;
  return rank.bound.value_or(fit) ? ShareOf(allowed, 0, 1, threads_per_rank)
                                  : ShareOf(allowed, rank.index, rank.count, threads_per_rank);
}

}  // namespace moebius
