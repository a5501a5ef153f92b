#include "train/planner/link_timer.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <span>
#include <vector>

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

// The median of a few runs of `exchange`, each begun by all ranks together.
template <class Fn>
double MedianSeconds(Communicator& communicator, int runs, const Fn& exchange) {
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    communicator.Barrier().Wait();
    const auto start = Clock::now();
    exchange();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

}  // namespace

LinkRates MeasureLink(Communicator& communicator) {
  constexpr int kRuns = 9, kSmallRuns = 101;
  constexpr int32_t kRows = 1 << 19;  // to each rank, of one float
  const int n = communicator.size();
  const std::vector<int32_t> counts(n, kRows);
  std::vector<float> send(static_cast<size_t>(n) * kRows), receive(send.size());
  const double all_to_all = MedianSeconds(communicator, kRuns, [&] {
    communicator.AllToAllV({std::span(send), counts}, {std::span(receive), counts}, 1).Wait();
  });
  const double all_reduce =
      MedianSeconds(communicator, kRuns, [&] { communicator.AllReduce(std::span(send)).Wait(); });
  std::vector<float> one(1);
  const double smallest = MedianSeconds(communicator, kSmallRuns,
                                        [&] { communicator.AllReduce(std::span(one)).Wait(); });

  constexpr double kSteps = 2;  // of an all-reduce
  const double bytes = static_cast<double>(send.size()) * sizeof(float);
  const double sent = bytes * (n - 1) / n;
  LinkRates rates{.latency_seconds = smallest / kSteps};
  rates.bandwidth = sent / std::max(all_to_all - rates.latency_seconds, all_to_all / 2);
  const double adding = all_reduce - smallest - kSteps * sent / rates.bandwidth;
  if (adding > 0) rates.reduction_bandwidth = bytes / adding;
  return rates;
}

}  // namespace moebius
