// A device other than the CPU: its memory, and the work that it has been given. A plugin implements
// it, so that one program serves machines with and without one.
//
// Work runs in the order in which it was given, behind the caller's back. The host reads and writes
// the device's memory where Tensor::data says so, which waits for that work first: correct
// everywhere, and counted, so that a step that should never wait can be held to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "core/tensor/dtype.h"

namespace moebius {

namespace kernels {
struct Backend;
}

class Accelerator {
 public:
  virtual ~Accelerator() = default;

  virtual std::string Describe() const = 0;  // "NVIDIA H200, 139 GiB"

  // Operations per second that its data sheet gives for dense products; 0: not known.
  virtual double PeakFlops(DType dtype) const = 0;

  // Memory that both the device and the host can use; null: there is not as much.
  virtual void* Map(int64_t bytes) = 0;
  virtual void Unmap(void* memory, int64_t bytes) = 0;

  virtual void Clear(void* memory, int64_t bytes) = 0;  // to zero bytes, in the order of its work

  // In which its work is queued; what that is is known to its kernels alone.
  virtual void* stream() const = 0;
  // What computes on it (kernels/backend.h).
  virtual const kernels::Backend& kernels() const = 0;

  // Work has been given to it.
  void MarkBusy() { busy_.store(true, std::memory_order_relaxed); }

  // Returns when all its work is done.
  void Wait() {
    if (!busy_.load(std::memory_order_relaxed)) return;
    WaitForWork();
    busy_.store(false, std::memory_order_relaxed);
    ++num_waits_;
  }
  int64_t num_waits() const { return num_waits_; }  // for work that was under way

 private:
  virtual void WaitForWork() = 0;

  std::atomic<bool> busy_{false};
  std::atomic<int64_t> num_waits_{0};
};

}  // namespace moebius
