#include "kernels/cuda/emulation/emulation.h"

#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "core/base/check.h"
#include "kernels/cuda/emulation/hopper.h"

namespace moebius::cuda_emulation {
namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = size_t{256} << 10;

enum class State { kIdle, kRunning, kAtBlockBarrier, kAtWarpBarrier, kPolling };

// A stack on which threads of a block run. One that meets a barrier keeps its stack.
struct Fiber {
  State state = State::kIdle;
  int thread = 0;
  const std::function<bool()>* ready = nullptr;  // of one that polls
  jmp_buf resume;
  bool started = false;
  ucontext_t context;
  std::unique_ptr<std::byte[]> stack{new std::byte[kStackBytes]};
};

class Block {
 public:
  void Run(const Index& block, const Index& blocks, int threads, const std::function<void()>& body);

  Place& place() { return place_; }
  void Wait(State barrier);
  void Poll(const std::function<bool()>& ready);
  void* slot(int lane) { return &slots_[running_->thread / kWarp * kWarp + lane]; }

 private:
  static void Main(unsigned high, unsigned low);
  void RunThreads();
  void Resume(Fiber* fiber);
  Fiber* Idle();
  void Release();
  bool AllOfWarpWait(int warp) const;

  Place place_;
  const std::function<void()>* body_ = nullptr;
  int num_threads_ = 0, next_ = 0, ended_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> of_thread_;  // that waits; null: not begun or ended
  std::vector<bool> has_ended_;
  std::vector<int64_t> slots_;
  Fiber* running_ = nullptr;
  jmp_buf scheduler_;
  ucontext_t start_;
};

Block& ThisBlock() {
  static thread_local Block block;
  return block;
}

void Block::Run(const Index& block, const Index& blocks, int threads,
                const std::function<void()>& body) {
  place_ = {.block = block, .threads = {static_cast<unsigned>(threads), 1, 1}, .blocks = blocks};
  body_ = &body;
  num_threads_ = threads;
  next_ = ended_ = 0;
  of_thread_.assign(threads, nullptr);
  has_ended_.assign(threads, false);
  slots_.resize(threads);
  while (next_ < num_threads_) Resume(Idle());
  while (ended_ < num_threads_) Release();
}

Fiber* Block::Idle() {
  for (const auto& fiber : fibers_) {
    if (fiber->state == State::kIdle) return fiber.get();
  }
  fibers_.push_back(std::make_unique<Fiber>());
  return fibers_.back().get();
}

void Block::Resume(Fiber* fiber) {
  running_ = fiber;
  fiber->state = State::kRunning;
  place_.thread.x = static_cast<unsigned>(fiber->thread);
  if (_setjmp(scheduler_) != 0) return;
  if (fiber->started) _longjmp(fiber->resume, 1);
  fiber->started = true;
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack.get();
  fiber->context.uc_stack.ss_size = kStackBytes;
  fiber->context.uc_link = nullptr;
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&fiber->context, reinterpret_cast<void (*)()>(&Block::Main), 2,
              static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
  setcontext(&fiber->context);
}

void Block::Main(unsigned high, unsigned low) {
  reinterpret_cast<Block*>(uintptr_t{high} << 32 | low)->RunThreads();
}

// A fiber's life: the threads that have not begun, one after the other.
void Block::RunThreads() {
  while (true) {
    while (next_ < num_threads_) {
      Fiber* const self = running_;
      self->thread = next_++;
      place_.thread.x = static_cast<unsigned>(self->thread);
      (*body_)();
      // Another fiber may have been the scheduler's last: this one is running again.
      has_ended_[running_->thread] = true;
      of_thread_[running_->thread] = nullptr;
      ++ended_;
    }
    running_->state = State::kIdle;
    if (_setjmp(running_->resume) == 0) _longjmp(scheduler_, 1);
  }
}

void Block::Wait(State barrier) {
  Fiber* const self = running_;
  self->state = barrier;
  of_thread_[self->thread] = self;
  if (_setjmp(self->resume) == 0) _longjmp(scheduler_, 1);
}

void Block::Poll(const std::function<bool()>& ready) {
  if (ready()) return;
  running_->ready = &ready;
  Wait(State::kPolling);
}

bool Block::AllOfWarpWait(int warp) const {
  const int end = std::min(num_threads_, (warp + 1) * kWarp);
  for (int t = warp * kWarp; t < end; ++t) {
    if (has_ended_[t] || of_thread_[t]->state != State::kAtWarpBarrier) return false;
  }
  return true;
}

// All threads have begun, and wait or have ended.
void Block::Release() {
  bool goes_on = false;
  for (int t = 0; t < num_threads_; ++t) {
    Fiber* const fiber = of_thread_[t];
    if (has_ended_[t] || fiber->state != State::kPolling || !(*fiber->ready)()) continue;
    goes_on = true;
    Resume(fiber);
  }
  for (int warp = 0; warp * kWarp < num_threads_; ++warp) {
    if (!AllOfWarpWait(warp)) continue;
    goes_on = true;
    const int end = std::min(num_threads_, (warp + 1) * kWarp);
    for (int t = warp * kWarp; t < end; ++t) Resume(of_thread_[t]);
  }
  if (goes_on) return;
  for (int t = 0; t < num_threads_; ++t) {
    CHECK(!has_ended_[t] && of_thread_[t]->state == State::kAtBlockBarrier)
        << "thread " << t << " of block " << place_.block.x
        << " is not at the barrier where others of its block or warp wait";
  }
  for (int t = 0; t < num_threads_; ++t) Resume(of_thread_[t]);
}

}  // namespace

Place& CurrentPlace() { return ThisBlock().place(); }

void Run(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& body) {
  const Index count = {static_cast<unsigned>(blocks), 1, 1};
  for (unsigned block = 0; block < count.x; ++block) {
    BeginAsync(threads, shared_bytes);
    ThisBlock().Run({block, 0, 0}, count, threads, body);
    EndAsync();
  }
}

void BlockBarrier() { ThisBlock().Wait(State::kAtBlockBarrier); }
void Poll(const std::function<bool()>& ready) { ThisBlock().Poll(ready); }
void WarpBarrier() { ThisBlock().Wait(State::kAtWarpBarrier); }
int Lane() { return static_cast<int>(ThisBlock().place().thread.x) % kWarp; }

void Exchange(void* value, int bytes, int from) {
  Block& block = ThisBlock();
  std::memcpy(block.slot(Lane()), value, bytes);
  WarpBarrier();
  std::memcpy(value, block.slot(from), bytes);
  WarpBarrier();
}

}  // namespace moebius::cuda_emulation
