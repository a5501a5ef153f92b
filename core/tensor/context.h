// What a rank computes with: device, threads, memory, and the numbers that change from step to
// step. One per rank, passed, never global: several ranks may share a process.
#pragma once

#include <memory>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/tensor/arena.h"
#include "core/tensor/tensor.h"
#include "core/tensor/work.h"

namespace moebius {

// The device's memory, and its host's: pinned, where an accelerator copies from and to it.
enum class MemoryTier { kDevice, kHost };

// The numbers of a step that kernels read, [kSize] F64 on the device: so no kernel is told what
// changes from step to step, nobody waits for what the device finds, and a recorded step can be
// replayed.
struct StepState {
  enum Number {
    kStep,  // from 1
    kLearningRate,
    kClipScale,  // what gradients are multiplied by before the update
    kUpdates,    // 0: nothing is updated
    kLoss,
    kGradientNorm,
    kSize
  };
};

class Context {
 public:
  struct Options {
    Device device = kCpu;
    int num_threads = 1;
    std::vector<int> cores = {};  // thread i is pinned to cores[i]; empty: not pinned
    int64_t device_budget_bytes = 0;
    int64_t host_budget_bytes = 0;
    WorkObserver* observer = nullptr;                    // of ops; outlives the context
    std::shared_ptr<Accelerator> accelerator = nullptr;  // if the device is one
    // Numbers that ops hold at a time where they can work in chunks (the loss's logits): those of
    // the CPU stay in its caches.
    int64_t chunk_elements = int64_t{1} << 21;
    // On kMeta: those of the device that is planned for pack weights (packs_weights).
    bool packs_weights = true;
    // On kMeta: the device that is planned for reads the host tier (reads_host_tier).
    bool reads_host_tier = true;
  };

  explicit Context(const Options& options)
      : device_(options.device),
        pool_(options.num_threads, options.cores),
        device_arena_("device", options.device, options.device_budget_bytes, options.accelerator),
        host_arena_("host", options.device.is_meta() ? kMeta : kCpu, options.host_budget_bytes,
                    options.accelerator),
        accelerator_(options.accelerator),
        observer_(options.observer),
        chunk_elements_(options.chunk_elements),
        packs_weights_(options.packs_weights && options.accelerator == nullptr),
        reads_host_tier_(options.reads_host_tier && options.accelerator == nullptr) {}
  Context() : Context(Options{}) {}
  ~Context() { Wait(); }

  Device device() const { return device_; }
  Accelerator* accelerator() const { return accelerator_.get(); }  // null on the CPU
  ThreadPool& pool() { return pool_; }
  Arena& arena(MemoryTier tier = MemoryTier::kDevice) {
    return tier == MemoryTier::kDevice ? device_arena_ : host_arena_;
  }

  // Of a step from 1 on, that is not clipped and updates, as long as nobody finds otherwise.
  void BeginStep(int64_t step, double learning_rate);
  const Tensor& step_state() const { return step_state_; }  // undefined before the first step
  double learning_rate() const { return learning_rate_; }

  int64_t chunk_elements() const { return chunk_elements_; }
  // Products read images of weights in an order of their own, one for each direction
  // (kernels/weight_images.h): the CPU's do, an accelerator's read weights as they are.
  bool packs_weights() const { return packs_weights_; }
  // Kernels compute on the host tier as on the device's own: on the CPU both are one memory, with
  // two budgets. An accelerator's numbers are copied from one to the other.
  bool reads_host_tier() const { return reads_host_tier_; }

  // Every op calls it once its arguments are checked, and every part of a step where it begins
  // (core/tensor/work.h).
  OpScope Start(const Work& work) { return OpScope(work, device_.is_meta(), observer_); }
  PhaseScope StartPhase(const char* name) { return PhaseScope(name, observer_); }
  bool is_watched() const { return observer_ != nullptr && observer_->IsWatching(); }

  // Returns when the device has done what it was given. The CPU is never behind.
  void Wait() {
    if (accelerator_ != nullptr) accelerator_->Wait();
  }

  // Uninitialised. `name` is for accounting: "experts.x".
  Tensor Empty(DType dtype, const Shape& shape, const char* name,
               MemoryTier tier = MemoryTier::kDevice);
  Tensor Zeros(DType dtype, const Shape& shape, const char* name,
               MemoryTier tier = MemoryTier::kDevice);

 private:
  const Device device_;
  ThreadPool pool_;
  Arena device_arena_;
  Arena host_arena_;
  const std::shared_ptr<Accelerator> accelerator_;
  WorkObserver* const observer_;
  const int64_t chunk_elements_;
  const bool packs_weights_;
  const bool reads_host_tier_;
  Tensor step_state_;
  double learning_rate_ = 0;
};

}  // namespace moebius
