#include "kernels/cuda/emulation/stream.h"

#include <sys/mman.h>

#include <utility>

#include "core/base/check.h"

namespace moebius::cuda_emulation {

void* Stream::Map(int64_t bytes) {
  void* memory = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  const std::lock_guard lock(mutex_);
  mappings_[memory] = bytes;
  return memory;
}

void Stream::Unmap(void* memory, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  mappings_.erase(memory);
  ::munmap(memory, static_cast<size_t>(bytes));
}

void Stream::Run() {
  const std::lock_guard lock(mutex_);
  Protect(PROT_READ | PROT_WRITE);
  for (const auto& work : std::exchange(work_, {})) work();
  Protect(PROT_NONE);
}

void Stream::Protect(int access) {
  for (const auto& [memory, bytes] : mappings_) {
    CHECK_EQ(::mprotect(memory, static_cast<size_t>(bytes), access), 0) << "device memory";
  }
}

}  // namespace moebius::cuda_emulation
