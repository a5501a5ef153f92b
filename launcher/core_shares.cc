#include "launcher/core_shares.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

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
  RankCores share = rank.bound.value_or(fit)
                        ? ShareOf(allowed, 0, 1, threads_per_rank)
                        : ShareOf(allowed, rank.index, rank.count, threads_per_rank);
  share.index = rank.index;
  return share;
}

std::optional<int> TasksOnNode(absl::string_view list, int node) {
  for (absl::string_view entry : absl::StrSplit(list, ',')) {
    int tasks = 0, nodes = 1;
    if (absl::ConsumeSuffix(&entry, ")")) {
      const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(entry, "(x");
      if (!absl::SimpleAtoi(parts.second, &nodes)) return std::nullopt;
      entry = parts.first;
    }
    if (!absl::SimpleAtoi(entry, &tasks) || tasks < 1 || nodes < 1) return std::nullopt;
    if (node < nodes) return tasks;
    node -= nodes;
  }
  return std::nullopt;
}

}  // namespace moebius
