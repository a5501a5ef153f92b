#pragma once

#include "kernels/backend.h"

namespace moebius::cpu {

extern const kernels::Backend kBackend;

}  // namespace moebius::cpu
