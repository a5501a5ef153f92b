// The range of every number in a config. Internal to configs/.
#pragma once

#include <string>

namespace moebius {

struct Range {
  const char* path;  // without indices
  double min;        // the smallest positive double where 0 itself is not allowed
  double max;
  bool below_max = false;  // max itself is not allowed

  // False for NaN.
  bool Contains(double value) const;

  // "at least 1 and at most 100"
  std::string Describe() const;
};

// The range of the number at `path` (with or without indices); null for other types and for seeds,
// of which any is good.
const Range* FindRange(const std::string& path);

// A double in its shortest form of at most 10 digits.
std::string FormatNumber(double value);

}  // namespace moebius
