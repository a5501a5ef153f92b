// Saves a checkpoint again and again, and each time the process dies, or the storage fails, at
// another of its calls to the operating system. The C library's functions are replaced in this
// binary, so nothing in the library knows that it is tested.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <mutex>
#include <set>

#include "core/base/files.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/checkpoint_samples.h"
#include "train/checkpoint/checkpoint_writer.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

constexpr int kDied = 42;  // exit codes of a child
constexpr int kNoSuchCall = 7;
constexpr int kShort = -1;  // write less than was asked for

enum class Fault { kNone, kDie, kLoseUnflushed, kDiskFull, kIoError, kShortWrite };

struct Injector {
  Fault fault = Fault::kNone;
  int at_call = 0;
  std::string below;  // only calls on files of this folder count
  std::atomic<int> calls = 0;
  std::mutex mutex;
  std::set<std::string> unflushed;
};
Injector injector;

std::string PathOf(int fd) {
  char buffer[4096];
  const ssize_t size =
      ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), buffer, sizeof buffer);
  return size < 0 ? std::string() : std::string(buffer, static_cast<size_t>(size));
}

// A power cut: of what was not flushed, a part is gone.
[[noreturn]] void Die() {
  if (injector.fault == Fault::kLoseUnflushed) {
    for (const std::string& path : injector.unflushed) {
      std::error_code ignored;
      fs::resize_file(path, fs::file_size(path, ignored) / 2, ignored);
    }
  }
  ::syscall(SYS_exit_group, kDied);  // at once, sanitizers included
  __builtin_unreachable();
}

// Counts a call, and says what it shall do instead of its work: go on (0), fail with an errno, or
// kShort.
int OnCall(const std::string& path) {
  if (injector.fault == Fault::kNone || !path.starts_with(injector.below)) return 0;
  if (++injector.calls != injector.at_call) return 0;
  if (injector.fault == Fault::kDiskFull) return ENOSPC;
  if (injector.fault == Fault::kIoError) return EIO;
  if (injector.fault == Fault::kShortWrite) return kShort;
  const std::lock_guard lock(injector.mutex);
  Die();
}

template <class Function>
Function Real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

int Fail(int error) {
  errno = error;
  return -1;
}

}  // namespace
}  // namespace moebius

extern "C" {

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  using namespace moebius;
  const std::string path = PathOf(fd);
  const int error = OnCall(path);
  if (error == kShort) size = size / 2 + 1;
  if (error > 0) return Fail(error);
  const std::lock_guard lock(injector.mutex);
  injector.unflushed.insert(path);
  return Real<decltype(&pwrite)>("pwrite")(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  return pwrite(fd, data, size, offset);
}
ssize_t write(int fd, const void* data, size_t size) {
  using namespace moebius;
  const std::string path = PathOf(fd);
  const int error = OnCall(path);
  if (error == kShort) size = size / 2 + 1;
  if (error > 0) return Fail(error);
  const std::lock_guard lock(injector.mutex);
  injector.unflushed.insert(path);
  return Real<decltype(&write)>("write")(fd, data, size);
}
int fsync(int fd) {
  using namespace moebius;
  const std::string path = PathOf(fd);
  if (const int error = OnCall(path); error > 0) return Fail(error);
  const std::lock_guard lock(injector.mutex);
  injector.unflushed.erase(path);
  return Real<decltype(&fsync)>("fsync")(fd);
}
int rename(const char* from, const char* to) {
  using namespace moebius;
  if (const int error = OnCall(from); error > 0) return Fail(error);
  const int result = Real<decltype(&rename)>("rename")(from, to);
  // What lay unflushed in a renamed folder or file lies there still, under its new name.
  const std::lock_guard lock(injector.mutex);
  std::set<std::string> renamed;
  for (const std::string& path : injector.unflushed) {
    renamed.insert(path.starts_with(from) ? to + path.substr(std::string(from).size()) : path);
  }
  injector.unflushed = renamed;
  return result;
}
int mkdir(const char* path, mode_t mode) {
  using namespace moebius;
  if (const int error = OnCall(path); error > 0) return Fail(error);
  return Real<decltype(&mkdir)>("mkdir")(path, mode);
}
int remove(const char* path) noexcept {
  using namespace moebius;
  if (const int error = OnCall(path); error > 0) return Fail(error);
  return Real<decltype(&remove)>("remove")(path);
}

}  // extern "C"

namespace moebius {
namespace {

// A directory with the checkpoints 10 and 20, for copies to be made of.
std::string GoodDirectory() {
  const std::string directory = FreshFolder("good");
  Arena arena("host", kCpu);
  auto writer = CheckpointWriter::Create({directory, 0, 2, {}}, &arena).value();
  for (const int64_t step : {10, 20}) {
    writer->Save(SampleContent(step, 0, 1, arena));
    EXPECT_TRUE(writer->Wait().status.ok());
  }
  return directory;
}

// Saves step 30 in a child under the fault. Returns the child's exit code: 0 if the save succeeded,
// 1 if it reported an error.
int SaveUnderFault(const std::string& directory, Fault fault, int at_call) {
  const pid_t child = ::fork();
  if (child == 0) {
    injector.below = directory;
    injector.at_call = at_call;
    injector.fault = fault;
    Arena arena("host", kCpu);
    auto writer = CheckpointWriter::Create({directory, 20, 2, {}}, &arena);
    if (!writer.ok()) ::_exit(1);
    (*writer)->Save(SampleContent(30, 0, 1, arena));
    const bool ok = (*writer)->Wait().status.ok();
    ::_exit(ok && injector.calls < at_call ? kNoSuchCall : ok ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status)) << "the save crashed by itself";
  return WEXITSTATUS(status);
}

// What a run finds that starts again.
void ExpectAGoodCheckpoint(const std::string& directory, const std::set<int64_t>& allowed) {
  const auto newest = OpenNewest(directory);
  ASSERT_TRUE(newest.ok() && newest->has_value()) << newest.status();
  const CheckpointReader& reader = (*newest)->reader;
  EXPECT_TRUE((*newest)->warnings.empty()) << (*newest)->warnings[0];
  EXPECT_TRUE(allowed.contains(reader.step())) << reader.step();
  Arena arena("host", kCpu);
  const auto tensors = EmptySamples(0, 1, arena);
  for (const CheckpointTensor& tensor : tensors) ASSERT_TRUE(reader.Read(tensor).ok());
  EXPECT_TRUE(IsSample(tensors, reader.step()));
}

class EveryCall : public testing::TestWithParam<Fault> {};

TEST_P(EveryCall, LeavesAGoodCheckpoint) {
  const Fault fault = GetParam();
  const std::string directory =
      fs::canonical(FreshFolder(absl::StrCat("crash", static_cast<int>(fault)))).string();
  const std::string good = GoodDirectory();
  int calls = 0;
  for (int at_call = 1;; ++at_call) {
    fs::remove_all(directory);
    fs::copy(good, directory, fs::copy_options::recursive);
    const int code = SaveUnderFault(directory, fault, at_call);
    if (code == kNoSuchCall) break;  // there is no such call: all are done
    ++calls;
    const bool dies = fault == Fault::kDie || fault == Fault::kLoseUnflushed;
    EXPECT_TRUE(dies ? code == kDied : code == 0 || code == 1) << code << " at " << at_call;
    EXPECT_TRUE(fault != Fault::kShortWrite || code == 0) << at_call;
    ExpectAGoodCheckpoint(directory, code == 0 ? std::set<int64_t>{30} : std::set<int64_t>{20, 30});
    if (testing::Test::HasFailure()) FAIL() << "call " << at_call;
  }
  EXPECT_GT(calls, 15) << "the calls were not seen";
}

INSTANTIATE_TEST_SUITE_P(Faults, EveryCall,
                         testing::Values(Fault::kDie, Fault::kLoseUnflushed, Fault::kDiskFull,
                                         Fault::kIoError, Fault::kShortWrite));

}  // namespace
}  // namespace moebius
