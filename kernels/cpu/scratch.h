// Work over the pool's threads where every thread needs scratch memory.
#pragma once

#include <algorithm>
#include <atomic>

#include "core/tensor/context.h"

namespace moebius::cpu {

// Floats of whole cache lines that hold `floats`.
inline int64_t WholeLines(int64_t floats) {
  constexpr int64_t kLine = 16;
  return (floats + kLine - 1) / kLine * kLine;
}

// Calls fn(worker, workers, scratch) on as many threads as there is work for. `scratch` holds
// `floats` uninitialised floats of this worker alone.
template <class Fn>
void ForWorkers(Context& context, int64_t count, int64_t floats, const char* name, const Fn& fn) {
  if (count <= 0) return;
  const int64_t workers = std::min<int64_t>(context.pool().num_threads(), count);
  const int64_t stride = WholeLines(floats);  // threads share no cache line
  const Tensor scratch = context.Empty(DType::kF32, {workers, stride}, name);
  context.pool().For(workers, [&](int64_t worker) {
    fn(worker, workers, scratch.data<float>() + worker * stride);
  });
}

// Calls fn(i, scratch) for i in [0, count), each once, in any order on any thread. `scratch` holds
// `floats` uninitialised floats that no other call uses meanwhile.
template <class Fn>
void ForWithScratch(Context& context, int64_t count, int64_t floats, const char* name,
                    const Fn& fn) {
  std::atomic<int64_t> next{0};
  ForWorkers(context, count, floats, name, [&](int64_t, int64_t, float* scratch) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) fn(i, scratch);
  });
}

// The same for items in the order of their work for each byte: half of the threads begin with the
// first, half with the last, so that some compute while others wait for memory. Calls fn(i, next,
// scratch), where `next` is what the same thread is likely to get then, or -1: no such item is
// left.
template <class Fn>
void ForFromBothEnds(Context& context, int64_t count, int64_t floats, const char* name,
                     const Fn& fn) {
  std::atomic<int64_t> taken{0}, from_first{0}, from_last{0};
  ForWorkers(context, count, floats, name, [&](int64_t worker, int64_t workers, float* scratch) {
    const bool forward = worker % 2 == 0;
    const int64_t beside = (workers + (forward ? 1 : 0)) / 2;  // that begin at the same end
    const auto at = [&](int64_t i) { return forward ? i : count - 1 - i; };
    while (taken.fetch_add(1, std::memory_order_relaxed) < count) {
      const int64_t i = (forward ? from_first : from_last).fetch_add(1, std::memory_order_relaxed);
      const int64_t others = (forward ? from_last : from_first).load(std::memory_order_relaxed);
      fn(at(i), i + beside < count - others ? at(i + beside) : -1, scratch);
    }
  });
}

// Cuts scratch into buffers that begin with a cache line. Of null it makes nulls, and `size` is
// what they need.
class Cutter {
 public:
  explicit Cutter(float* scratch) : scratch_(scratch) {}

  float* Take(int64_t floats) {
    float* const buffer = scratch_ == nullptr ? nullptr : scratch_ + size_;
    size_ += WholeLines(floats);
    return buffer;
  }
  int64_t size() const { return size_; }

 private:
  float* const scratch_;
  int64_t size_ = 0;
};

}  // namespace moebius::cpu
