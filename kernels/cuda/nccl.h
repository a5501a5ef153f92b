// Collectives of a device by NCCL. One NCCL communicator and one stream for each group, so that
// groups do not wait for each other; NCCL moves bytes, combine.h adds.
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda/accelerator.h"
#include "kernels/device_collectives.h"

namespace moebius::cuda {

// Null: NCCL cannot be used, and `reason` says why. `library`: nccl_functions.h.
std::shared_ptr<DeviceCollectives> OpenNcclCollectives(std::shared_ptr<Device> device,
                                                       const std::string& library,
                                                       std::string* reason);

}  // namespace moebius::cuda
