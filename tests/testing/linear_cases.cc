#include "tests/testing/linear_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/base/random.h"
#include "tests/testing/random_tensors.h"

namespace moebius::test {

int64_t LinearCase::num_rows() const {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}

Tensor LinearCase::Offsets(Context& context) const {
  std::vector<double> offsets(num_groups() + 1);
  std::partial_sum(rows.begin(), rows.end(), offsets.begin() + 1);
  return FromValues(context, DType::kI32, {std::ssize(offsets)}, offsets);
}

Tensor LinearCase::TokensOfRows(Context& context, int64_t tokens) const {
  std::vector<double> of_rows(num_rows());
  const RandomStream stream(1, "rows");
  for (int64_t r = 0; r < num_rows(); ++r) {
    of_rows[r] = static_cast<double>(stream.Below(r, static_cast<uint64_t>(tokens)));
  }
  auto token = of_rows.begin();
  for (const int rows_of_group : rows) {
    std::sort(token, token + rows_of_group);
    token += rows_of_group;
  }
  return FromValues(context, DType::kI32, {num_rows()}, of_rows);
}

void PrintTo(const LinearCase& c, std::ostream* out) {
  *out << "[" << c.N << ", " << c.K << "] over " << testing::PrintToString(c.rows);
}

const std::vector<LinearCase>& LinearCases() {
  static const std::vector<LinearCase> cases = [] {
    std::vector<LinearCase> all = {
        {1, 1, {1}},
        {33, 5, {7}},
        {64, 256, {130}},
        {31, 515, {29}},
        {70, 1031, {3}},
        {5, 7, {0}},
        {17, 33, {5, 0, 1, 40}},
        {48, 9, {0, 0, 140, 0}},
        {40, 24, {0, 0}},
        {256, 96, {15, 300}},
        {600, 40, {130}},
        {72, 520, {5, 2}},
        {136, 72, {1, 0, 129, 3}},
        {520, 136, {0, 260}},
    };
    LinearCase many_groups = {9, 6, std::vector<int>(150)};
    for (int j = 0; j < 150; ++j) many_groups.rows[j] = j * j % 4;
    all.push_back(many_groups);
    all.push_back({16, 8, many_groups.rows});
    return all;
  }();
  return cases;
}

}  // namespace moebius::test
