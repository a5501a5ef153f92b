// What cells are drawn from: the options with their choices, and which go together.
#pragma once

#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "tests/parity/cells.h"

namespace moebius {

struct Choice {
  std::string name;
  Overrides overrides;
};

struct Option {
  enum class Of { kRanks, kMicroBatch, kLayout, kTrained } of;
  std::string name;
  std::vector<Choice> choices;
  bool decides = true;  // false: goes with every choice of the others
};

const std::vector<Option>& Options();  // the first one is the number of ranks

using Draw = std::vector<int>;  // a choice for each option

MatrixCell CellOf(const Draw& draw);
absl::StatusOr<RunConfig> ConfigOf(const MatrixCell& cell);  // whatever the number of ranks
bool IsLegalOn(const absl::StatusOr<RunConfig>& config, int ranks);
bool IsLegal(const MatrixCell& cell);

}  // namespace moebius
