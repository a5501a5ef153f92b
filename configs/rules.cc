#include "configs/rules.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace moebius {

void Require(bool holds, const std::string& path, const std::string& message, Errors* errors) {
  if (!holds) errors->push_back({path, message});
}

std::string NearestMultiples(int64_t value, int64_t unit) {
  const int64_t below = value / unit * unit;
  return below == 0 ? absl::StrCat(unit) : absl::StrCat(below, " or ", below + unit);
}

std::string NearestDivisors(int64_t value, int64_t limit, const std::vector<int64_t>& numbers) {
  const auto divides = [&](int64_t divisor) {
    return std::all_of(numbers.begin(), numbers.end(),
                       [&](int64_t number) { return number % divisor == 0; });
  };
  std::vector<int64_t> found;
  for (int64_t below = std::min(value, limit); below >= 1; --below) {
    if (divides(below)) {
      found.push_back(below);
      break;
    }
  }
  for (int64_t above = value + 1; above <= limit; ++above) {
    if (divides(above)) {
      found.push_back(above);
      break;
    }
  }
  return absl::StrJoin(found, " or ");
}

bool HasDenseLayer(const ModelConfig& model) {
  for (int layer = 0; layer < model.num_layers(); ++layer) {
    if (!IsMoeLayer(model, layer)) return true;
  }
  return false;
}

}  // namespace moebius
