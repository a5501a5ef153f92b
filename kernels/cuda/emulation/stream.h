// The work of a device that the CPU plays, and the memory that this work alone may touch.
//
// Nothing is done before the host waits for it: as late as a device may. So a copy whose memory the
// host uses too early brings wrong numbers in a test, and an access of the host to the device's
// memory ends it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

namespace moebius::cuda_emulation {

class Stream {
 public:
  // Memory that can be touched while Run runs. Null: the system refuses. From any thread.
  void* Map(int64_t bytes);
  void Unmap(void* memory, int64_t bytes);

  void Add(std::function<void()> work) { work_.push_back(std::move(work)); }
  void Run();  // what was added, in its order

 private:
  void Protect(int access);

  std::vector<std::function<void()>> work_;
  std::mutex mutex_;  // of the mappings
  std::map<void*, int64_t> mappings_;
};

}  // namespace moebius::cuda_emulation
