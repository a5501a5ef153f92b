#include "kernels/open_cuda.h"

#include <dlfcn.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "kernels/cuda/plugin.h"

namespace moebius {
namespace {

constexpr char kPlugin[] = "libmoebius_cuda.so";

// Opened by each caller; it stays.
absl::StatusOr<const CudaPlugin*> Open(const std::string& path) {
  if (!std::filesystem::exists(path)) {
    return absl::NotFoundError(absl::StrCat(path, " is not there: built without CUDA"));
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* symbol = library != nullptr ? dlsym(library, kCudaPluginSymbol) : nullptr;
  if (symbol == nullptr) return absl::NotFoundError(dlerror());
  const CudaPlugin* plugin = reinterpret_cast<GetCudaPlugin>(symbol)();
  if (plugin->layout != kCudaPluginLayout) {
    return absl::NotFoundError(absl::StrCat(path, " belongs to another build of the program"));
  }
  return plugin;
}

}  // namespace

std::string CudaPluginPath() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / kPlugin;
}

absl::StatusOr<int> NumCudaDevices(const std::string& plugin_path) {
  const absl::StatusOr<const CudaPlugin*> plugin = Open(plugin_path);
  if (!plugin.ok()) return plugin.status();
  std::string reason;
  const int count = (*plugin)->num_devices(&reason);
  if (count == 0) return absl::NotFoundError(reason);
  return count;
}

absl::StatusOr<std::shared_ptr<Accelerator>> OpenCuda(const std::string& plugin_path, int ordinal) {
  const absl::StatusOr<int> count = NumCudaDevices(plugin_path);
  if (!count.ok()) return count.status();
  CHECK(0 <= ordinal && ordinal < *count) << "GPU " << ordinal << " of " << *count;
  return (*Open(plugin_path))->open(ordinal, EndProcess);
}

absl::StatusOr<std::shared_ptr<DeviceCollectives>> OpenDeviceCollectives(
    const std::string& plugin_path, const std::shared_ptr<Accelerator>& device,
    const std::string& library) {
  const absl::StatusOr<const CudaPlugin*> plugin = Open(plugin_path);
  if (!plugin.ok()) return plugin.status();
  std::string reason;
  auto collectives = (*plugin)->open_collectives(device, library, &reason);
  if (collectives == nullptr) return absl::NotFoundError(reason);
  return collectives;
}

}  // namespace moebius
