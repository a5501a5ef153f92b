// The devices of the machine, as an Accelerator each: accelerator.cu by CUDA, and
// emulation/accelerator.cc by the CPU.
#pragma once

#include <memory>
#include <string>

#include "core/tensor/accelerator.h"

namespace moebius::cuda {

int NumDevices(std::string* reason);
std::shared_ptr<Accelerator> OpenDevice(int ordinal);

}  // namespace moebius::cuda
