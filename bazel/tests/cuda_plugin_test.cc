// A program without CUDA opens a plugin with CUDA, on machines with and without a GPU.

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace {

TEST(CudaPlugin, ComputesOnTheDeviceOrSaysThatThereIsNone) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  void* plugin = dlopen((folder / "libsum_cuda.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(plugin, nullptr) << dlerror();
  auto* sum = reinterpret_cast<int (*)(int, int)>(dlsym(plugin, "Sum"));
  ASSERT_NE(sum, nullptr) << dlerror();
  const bool has_device = std::filesystem::exists("/dev/nvidia0");
  EXPECT_EQ(sum(2, 3), has_device ? 5 : -1);
}

}  // namespace
