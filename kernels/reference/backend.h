#pragma once

#include "kernels/backend.h"

namespace moebius::reference {

extern const kernels::Backend kBackend;

}  // namespace moebius::reference
