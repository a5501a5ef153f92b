// A fixed team of threads that computes for one rank. It owns all threads of the rank; libraries
// run single-threaded inside its tiles.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace moebius {

// Denormals are flushed to zero, on input and output, for the calling thread.
void FlushDenormals();

// Lets the calling thread, which a pinned thread started, run on every core of the process again.
void RunOnAnyCore();

class ThreadPool {
 public:
  // The calling thread is one of the `num_threads` (>= 1) and works along. Thread i is pinned to
  // cores[i] when `cores` is not empty. Denormals are flushed in every thread, the caller included.
  explicit ThreadPool(int num_threads, const std::vector<int>& cores = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(i) for i in [0, count), each once, in any order on any thread, and returns when all
  // are done. Results must not depend on the order. REQUIRES: called by one thread at a time, not
  // nested.
  template <class Fn>
  void For(int64_t count, const Fn& fn) {
    if (count <= 0) return;
    if (workers_.empty() || count == 1) {
      for (int64_t i = 0; i < count; ++i) fn(i);
      return;
    }
    Run({&fn, [](const void* f, int64_t i) { (*static_cast<const Fn*>(f))(i); }, count});
  }

  // Cuts [0, size) into ranges of about `grain` and calls fn(begin, end) for each. The cuts depend
  // on size and grain alone.
  template <class Fn>
  void ForRange(int64_t size, int64_t grain, const Fn& fn) {
    For((size + grain - 1) / grain, [&](int64_t i) {
      const int64_t begin = i * grain;
      fn(begin, begin + grain < size ? begin + grain : size);
    });
  }

 private:
  struct Job {
    const void* fn = nullptr;
    void (*call)(const void* fn, int64_t i) = nullptr;
    int64_t count = 0;
  };

  void Run(const Job& job);
  void Work();
  void WorkerLoop();

  Job job_;
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace moebius
