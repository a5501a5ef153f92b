#include "launcher/device.h"

#include <algorithm>
#include <span>
#include <vector>

#include "kernels/open_cuda.h"
#include "parallel/device_communicator.h"

namespace moebius {
namespace {

constexpr char kField[] = "run.device: CUDA asks for a GPU, but ";

}  // namespace

absl::StatusOr<DeviceChoice> ChooseDevice(const RunConfig& config, const std::string& plugin_path) {
  const ExecutionConfig::Device device = config.run().device();
  if (device == ExecutionConfig::CPU) return DeviceChoice{0, "device: CPU, as run.device says"};
  if (config.precision().compute() == PrecisionConfig::FP64) {
    if (device == ExecutionConfig::AUTO) return DeviceChoice{0, "device: CPU, which computes FP64"};
    return absl::InvalidArgumentError(
        absl::StrCat(kField, "precision.compute: FP64 is computed by the CPU; use FP32 or BF16"));
  }
  const absl::StatusOr<int> num_gpus = NumCudaDevices(plugin_path);
  if (device == ExecutionConfig::CUDA) {
    if (num_gpus.ok()) return DeviceChoice{*num_gpus, "device: CUDA, as run.device says"};
    return absl::InvalidArgumentError(
        absl::StrCat(kField, "none can be used: ", num_gpus.status().message()));
  }
  return DeviceChoice{
      0, num_gpus.ok()
             ? "device: CPU (there is a GPU, but this version's CUDA kernels have not yet "
               "been measured on one; run.device: CUDA uses it)"
             : absl::StrCat("device: CPU (no GPU: ", num_gpus.status().message(), ")")};
}

absl::StatusOr<Context::Options> OnDevice(const DeviceChoice& choice,
                                          const std::string& plugin_path, int index,
                                          Communicator& world, Context::Options options) {
  double with_gpu = choice.num_gpus > 0 ? 1 : 0;
  world.AllReduce(std::span(&with_gpu, 1)).Wait();
  if (with_gpu != 0 && with_gpu != world.size()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("run.device: %g of %d ranks have a GPU; all must have one, or none use it "
                        "(run.device: CPU)",
                        with_gpu, world.size()));
  }
  if (choice.num_gpus == 0) return options;
  options.device = {DeviceKind::kCuda, index % choice.num_gpus};
  options.chunk_elements = kCudaChunkElements;
  ASSIGN_OR_RETURN(options.accelerator, OpenCuda(plugin_path, options.device.ordinal));
  return options;
}

DeviceWorld ConnectDevices(const Context::Options& options, const std::string& plugin_path,
                           Communicator& world) {
  if (options.accelerator == nullptr || world.size() == 1) return {};
  const auto collectives = OpenDeviceCollectives(plugin_path, options.accelerator);
  int64_t mine[] = {collectives.ok(), 0};
  if (collectives.ok()) mine[1] = static_cast<int64_t>((*collectives)->device_number());
  std::vector<int64_t> all(2 * world.size()), devices;
  world.AllGather(std::span(mine), std::span(all)).Wait();

  const std::string by_host = "exchanges: by way of the host's memory";
  for (int r = 0; r < world.size(); ++r) {
    devices.push_back(all[2 * r + 1]);
    if (all[2 * r] != 0) continue;
    return {nullptr, absl::StrCat(by_host, " (no NCCL on rank ", r, collectives.ok() ? "" : ": ",
                                  collectives.status().message(), ")")};
  }
  std::ranges::sort(devices);
  if (std::ranges::adjacent_find(devices) != devices.end()) {
    return {nullptr,
            absl::StrCat(by_host, " (ranks share a GPU, and NCCL takes one rank on each)")};
  }
  return {std::make_unique<DeviceCommunicator>(world, options.accelerator, *collectives),
          absl::StrCat("exchanges: ", (*collectives)->Describe(),
                       ", as every rank has a GPU of its own")};
}

}  // namespace moebius
