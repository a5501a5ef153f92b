#include "train/planner/op_fit.h"

#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace moebius {
namespace {

constexpr int kNumRates = 3;
using Row = std::array<double, kNumRates>;

Row FeaturesOf(const OpSample& sample) { return {sample.groups, sample.flops, sample.bytes}; }

// The least-squares solution over the features in `used` (a bit each), by Gaussian elimination of
// the normal equations; the others are 0. Nothing where they are not independent.
std::optional<Row> Solve(const std::vector<Row>& rows, const Row& scale, unsigned used) {
  std::array<std::array<double, kNumRates + 1>, kNumRates> a{};
  for (int i = 0; i < kNumRates; ++i) {
    if (!(used >> i & 1)) {
      a[i][i] = 1;
      continue;
    }
    for (const Row& row : rows) {
      for (int j = 0; j < kNumRates; ++j) {
        if (used >> j & 1) a[i][j] += row[i] * row[j] / (scale[i] * scale[j]);
      }
      a[i][kNumRates] += row[i] / scale[i];
    }
  }
  constexpr double kSmallest = 1e-9;
  for (int i = 0; i < kNumRates; ++i) {
    int pivot = i;
    for (int k = i + 1; k < kNumRates; ++k) {
      if (std::abs(a[k][i]) > std::abs(a[pivot][i])) pivot = k;
    }
    if (std::abs(a[pivot][i]) < kSmallest) return std::nullopt;
    std::swap(a[i], a[pivot]);
    for (int k = 0; k < kNumRates; ++k) {
      if (k == i) continue;
      const double factor = a[k][i] / a[i][i];
      for (int j = i; j <= kNumRates; ++j) a[k][j] -= factor * a[i][j];
    }
  }
  Row solution{};
  for (int i = 0; i < kNumRates; ++i) {
    if (used >> i & 1) solution[i] = a[i][kNumRates] / a[i][i] / scale[i];
  }
  return solution;
}

double SquaredError(const std::vector<Row>& rows, const Row& solution) {
  double sum = 0;
  for (const Row& row : rows) {
    double predicted = 0;
    for (int i = 0; i < kNumRates; ++i) predicted += row[i] * solution[i];
    sum += (predicted - 1) * (predicted - 1);
  }
  return sum;
}

}  // namespace

double OpRates::SecondsOf(const OpSample& sample) const {
  return sample.groups * per_group + sample.flops * per_flop + sample.bytes * per_byte;
}

// Three features have few enough subsets to try them all; the best one without a negative rate is
// the constrained optimum.
OpRates FitRates(const std::vector<OpSample>& samples) {
  std::vector<Row> rows;
  Row scale{};
  for (const OpSample& sample : samples) {
    Row row = FeaturesOf(sample);
    for (int i = 0; i < kNumRates; ++i) {
      row[i] /= sample.seconds;
      scale[i] += row[i];
    }
    rows.push_back(row);
  }
  Row best{};
  double least = std::numeric_limits<double>::infinity();
  for (unsigned used = 1; used < 1U << kNumRates; ++used) {
    bool is_possible = true;
    for (int i = 0; i < kNumRates; ++i) is_possible &= !(used >> i & 1) || scale[i] > 0;
    const std::optional<Row> solution =
        is_possible ? Solve(rows, scale, used) : std::optional<Row>();
    if (!solution || (*solution)[0] < 0 || (*solution)[1] < 0 || (*solution)[2] < 0) continue;
    const double error = SquaredError(rows, *solution);
    if (error < least) {
      least = error;
      best = *solution;
    }
  }
  return {best[0], best[1], best[2]};
}

}  // namespace moebius
