// A plugin lies beside the program and is found from the program's own path.

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace {

TEST(Plugin, IsFoundBesideTheProgram) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  void* plugin = dlopen((folder / "libsum.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(plugin, nullptr) << dlerror();
  auto* sum = reinterpret_cast<int (*)(int, int)>(dlsym(plugin, "Sum"));
  ASSERT_NE(sum, nullptr) << dlerror();
  EXPECT_EQ(sum(2, 3), 5);
  dlclose(plugin);
}

}  // namespace
