// Measured seconds of ops as a linear function of what they do.
#pragma once

#include <vector>

namespace moebius {

struct OpSample {
  double groups = 1;
  double flops = 0;
  double bytes = 0;
  double seconds = 0;  // measured; more than 0
};

// seconds = groups * per_group + flops * per_flop + bytes * per_byte
struct OpRates {
  double per_group = 0;
  double per_flop = 0;
  double per_byte = 0;

  double SecondsOf(const OpSample& sample) const;
};

// The rates, none negative, with the least sum of squared relative errors. All 0 without samples.
OpRates FitRates(const std::vector<OpSample>& samples);

}  // namespace moebius
