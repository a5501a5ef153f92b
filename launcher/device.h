// What ranks compute on, as run.device says.
#pragma once

#include <string>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "core/tensor/context.h"
#include "parallel/communicator.h"

namespace moebius {

struct DeviceChoice {
  int num_gpus = 0;      // of this host, which its ranks share in turn; 0: the CPU computes
  std::string sentence;  // "device: CPU (there is no GPU: ...)"
};

// Before anything starts. InvalidArgument: the config asks for a GPU and none can be used.
absl::StatusOr<DeviceChoice> ChooseDevice(const RunConfig& config, const std::string& plugin_path);

// Completes `options` for the rank `index` of this host. All ranks call it together, and all must
// have chosen alike.
absl::StatusOr<Context::Options> OnDevice(const DeviceChoice& choice,
                                          const std::string& plugin_path, int index,
                                          Communicator& world, Context::Options options);

}  // namespace moebius
