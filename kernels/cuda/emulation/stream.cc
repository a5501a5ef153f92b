#include "kernels/cuda/emulation/stream.h"

#include <sched.h>
#include <sys/mman.h>

#include "core/base/check.h"

namespace moebius::cuda_emulation {
namespace {

thread_local bool runs_early = false;  // so that no event makes another stream run

}  // namespace

void* Memory::Map(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  const int access = depth_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE;
  void* memory = ::mmap(nullptr, static_cast<size_t>(bytes), access,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  mappings_[static_cast<char*>(memory)] = bytes;
  return memory;
}

void Memory::Unmap(void* memory, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  mappings_.erase(static_cast<char*>(memory));
  ::munmap(memory, static_cast<size_t>(bytes));
}

bool Memory::Owns(const void* memory, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  auto* const begin = static_cast<const char*>(memory);
  for (const auto& [mapping, size] : mappings_) {
    if (mapping <= begin && begin + bytes <= mapping + size) return true;
  }
  return false;
}

Memory::Access::Access(Memory& memory) : memory_(memory), lock_(memory.mutex_) {
  if (memory_.depth_++ == 0) memory_.Protect(PROT_READ | PROT_WRITE);
}

Memory::Access::~Access() {
  if (--memory_.depth_ == 0) memory_.Protect(PROT_NONE);
}

void Memory::Protect(int access) {
  for (const auto& [memory, bytes] : mappings_) {
    CHECK_EQ(::mprotect(memory, static_cast<size_t>(bytes), access), 0) << "device memory";
  }
}

void Stream::RunWhileItCan(const std::function<bool()>& enough) {
  if (!runs_early) RunSteps(enough);
}

void Stream::RunEarly() {
  runs_early = true;
  RunSteps([] { return false; });
  runs_early = false;
}

void Stream::RunSteps(const std::function<bool()>& enough) {
  if (running_ || steps_.empty()) return;
  const Memory::Access access(memory_);
  running_ = true;
  while (!steps_.empty() && !enough() && steps_.front()()) steps_.pop_front();
  running_ = false;
}

void Stream::Run() {
  while (true) {
    RunWhileItCan([] { return false; });
    if (steps_.empty()) return;
    ::sched_yield();
  }
}

}  // namespace moebius::cuda_emulation
