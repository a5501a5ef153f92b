// What ranks compute on, as run.device says.
#pragma once

#include <memory>
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

// How ranks with devices exchange what lies in their memory.
struct DeviceWorld {
  // From GPU to GPU, for what is computed with `options`; null: by way of the host's memory, which
  // parallel/mesh.h sees to. The world, the accelerator and the plugin outlive it.
  std::unique_ptr<Communicator> world;
  // For the log of rank 0: "exchanges: NCCL 2.28.9, as every rank has a GPU of its own". One rank,
  // or no accelerator: "".
  std::string sentence;
};

// By NCCL, if all ranks can open it and no two share a GPU. All ranks call it together.
DeviceWorld ConnectDevices(const Context::Options& options, const std::string& plugin_path,
                           Communicator& world);

}  // namespace moebius
