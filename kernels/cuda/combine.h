// Sums and maxima over ranks, in their order.
#pragma once

#include "kernels/device_collectives.h"

namespace moebius::cuda {

// DeviceGroup::Combine, as work of `stream`. `out` may be one of the parts' memory.
void CombineParts(const CombineArgs& args, void* stream);

}  // namespace moebius::cuda
