#include "core/base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include "core/base/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moebius {
namespace {

constexpr int kSpins = 20000;  // about 50 us before a worker sleeps

void Relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

cpu_set_t CoresOfProcess() {
  cpu_set_t set;
  CPU_ZERO(&set);
  (void)::sched_getaffinity(0, sizeof set, &set);
  return set;
}
const cpu_set_t kCoresAtStart = CoresOfProcess();

void PinTo(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  // A core that the machine does not grant is no error: the thread runs where it may.
  (void)::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
}

}  // namespace

void FlushDenormals() {
#if defined(__x86_64__)
  constexpr unsigned kFtzDaz = 0x8040;
  _mm_setcsr(_mm_getcsr() | kFtzDaz);
#elif defined(__aarch64__)
  uint64_t fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  asm volatile("msr fpcr, %0" : : "r"(fpcr | uint64_t{1} << 24));
#endif
}

void RunOnAnyCore() {
  (void)::pthread_setaffinity_np(::pthread_self(), sizeof kCoresAtStart, &kCoresAtStart);
}

ThreadPool::ThreadPool(int num_threads, const std::vector<int>& cores) {
  CHECK_GE(num_threads, 1);
  CHECK(cores.empty() || static_cast<int>(cores.size()) >= num_threads) << "one core a thread";
  FlushDenormals();
  for (int i = 1; i < num_threads; ++i) {
    workers_.emplace_back([this, core = cores.empty() ? -1 : cores[i]] {
      if (core >= 0) PinTo(core);
      FlushDenormals();
      WorkerLoop();
    });
  }
  if (!cores.empty()) PinTo(cores[0]);
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    ++generation_;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(const Job& job) {
  {
    const std::lock_guard lock(mutex_);
    job_ = job;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  Work();
  for (int spins = 0; busy_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) {
      Relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::Work() {
  for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < job_.count;) {
    job_.call(job_.fn, i);
  }
}

void ThreadPool::WorkerLoop() {
  uint64_t seen = 0;
  for (;;) {
    for (int spins = 0; generation_.load(std::memory_order_acquire) == seen && spins < kSpins;
         ++spins) {
      Relax();
    }
    if (generation_.load(std::memory_order_acquire) == seen) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
    }
    seen = generation_.load(std::memory_order_acquire);
    if (stop_) return;
    Work();
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace moebius
