// The tape of one micro-batch: what ran forward, and how to run it backward.
//
// An op computes its output, saves what its backward needs, and records one closure; `Backward`
// runs the closures in reverse order. Three doors lead off the tape, and every policy about memory
// or communication lives behind one of them: Save (activations), Weight, and Gradient.
//
// The contract of all ops:
//   * A Var holds its value while layer code holds the Var. A closure captures only ids (VarId,
//   Saved),
//     numbers, and pointers to what outlives the tape (parameters, communicators), checked at
//     compile time. So what outlives the forward run is held by Save alone: counted by name, each
//     storage once, freed when its last use has run.
//   * The first writer of a gradient slot writes, later ones add: a slot says which (`accumulate`).
//   An op opens the slot of a parameter once a micro-batch.
//     The slot of a value is freed when the op that produced the value has run backward. The
//     gradient of a parameter lasts a step, over its micro-batches.
//   * Input gradients and weight gradients are separate closures, so that a schedule may run the
//     latter later. A deferred weight gradient holds exactly the saves that it names.
//   * What is decided once (plans, counts, statistics, exchanged sizes) is decided inside `Once`,
//   and
//     replayed when Recompute runs a function twice.
// A tape belongs to one thread.
#pragma once

#include <any>
#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"

namespace moebius {

struct VarId {
  int index = -1;
};
struct Saved {
  int index = -1;
};

// A value on a tape, as layer code sees it.
class Var {
 public:
  const Tensor& value() const { return value_; }
  VarId id() const { return id_; }
  const Shape& shape() const { return value_.shape(); }
  DType dtype() const { return value_.dtype(); }

 private:
  friend class Tape;
  Var(Tensor value, VarId id) : value_(std::move(value)), id_(id) {}
  Tensor value_;
  VarId id_;
};

// Where a gradient goes: written if it is the first, added to what is there if not.
struct GradientSlot {
  Tensor tensor;
  bool accumulate = false;
};

// What stages, blocks and Recompute speak: named values, and beside them what is not differentiated
// (a routing plan on its way from one segment to the next), which never crosses stages.
struct Bundle {
  std::vector<std::pair<const char*, Var>> values;
  std::any state;

  const Var& operator[](const char* name) const;
  void Set(const char* name, Var value);  // replaces a value of that name
};

using BundleFn = std::function<Bundle(class Tape&, const Bundle&)>;

// The door for weights: leases an image of a parameter for one use. Packing, gathering, streaming
// and quantising are policies behind it. The image is valid until the parameter's next update.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual Tensor Lease(Parameter& parameter, WeightFormat format, DType compute) = 0;

  // What comes next: leases of `now`, then of `next`, as far as one can tell. A source that fetches
  // weights gets them on their way, and drops the others. It changes no lease.
  virtual void Expect(std::span<Parameter* const> /*now*/, std::span<Parameter* const> /*next*/) {}
};

// The door for the gradients of parameters: where they add up, and when they are reduced over
// ranks. Without one they add up in Parameter::gradient.
class GradientSink {
 public:
  virtual ~GradientSink() = default;

  // The slot that one op is about to write the gradient of one use to.
  virtual GradientSlot Open(Parameter& parameter) = 0;

  // All slots opened so far are written.
  virtual void Written() = 0;
};

enum class WeightGradients {
  kNow,       // computed where backward meets them
  kDeferred,  // queued for RunDeferred, so that a schedule can fill its bubbles with them
};

// Every type that can be saved says how large it is; tensors are counted by storage.
inline int64_t Bytes(const std::vector<int>& numbers) { return std::ssize(numbers) * 4; }

class Tape {
 public:
  enum class Mode { kTrain, kForwardOnly };

  // All outlive the tape.
  Tape(Context& context, WeightSource& weights, Mode mode = Mode::kTrain,
       GradientSink* gradients = nullptr);
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape();

  Context& context() { return context_; }
  bool keeps() const { return mode_ == Mode::kTrain; }  // false: nothing is kept for backward

  // A leaf. Its gradient can be read after Backward.
  Var Input(Tensor value);

  // Keeps a tensor, or any copyable object with a `Bytes`, for backward. `name` must be a literal;
  // it is for accounting: "experts.x".
  Saved Save(const Tensor& tensor, const char* name);
  template <class T>
  Saved Save(T object, const char* name);
  const Tensor& Load(Saved saved) const;
  template <class T>
  const T& Load(Saved saved) const;

  // The output of an op. `backward(tape, dy)` receives the output's gradient.
  template <class BackwardFn>
  Var Record(Tensor value, BackwardFn backward);

  // An end: no output, its own gradient is one. `backward(tape)` adds gradients to its inputs. It
  // runs in Backward whatever the seeds.
  template <class BackwardFn>
  void RecordLoss(BackwardFn backward);

  // A point that backward passes: `passed(tape)` runs there, before what was recorded earlier.
  template <class PassedFn>
  void RecordPoint(PassedFn passed) {
    RecordLoss(passed);
  }

  // Within a backward closure: where the gradient of `x` goes.
  GradientSlot Gradient(VarId x);
  GradientSlot ParameterGradient(Parameter* parameter);

  // Within a backward closure: `compute(tape)` now or later. `uses` live until it has run.
  template <class Compute>
  void WeightGradient(std::initializer_list<Saved> uses, Compute compute);

  Tensor Weight(Parameter* parameter, WeightFormat format, DType compute) {
    return weights_.Lease(*parameter, format, compute);
  }
  void ExpectWeights(std::span<Parameter* const> now, std::span<Parameter* const> next) {
    weights_.Expect(now, next);
  }

  template <class Decide>
  auto Once(Decide decide) -> decltype(decide());

  // Runs `fn` keeping only its inputs, and again in backward. `fn` and what it refers to outlive
  // the tape.
  Bundle Recompute(const Bundle& inputs, const BundleFn* fn);

  // The number of recorded ops: a mark to run backward to.
  int Mark() const { return static_cast<int>(nodes_.size()); }

  // Runs backward from the last recorded op down to `mark`. A seed is the gradient of an output
  // that someone else computed; it becomes the tape's own and may be written to.
  struct Seed {
    VarId var;
    Tensor gradient;
  };
  void Backward(std::span<const Seed> seeds = {}, WeightGradients when = WeightGradients::kNow,
                int mark = 0);
  void RunDeferred();

  // Gradient of a leaf after Backward; undefined if none reached it.
  const Tensor& LeafGradient(VarId x) const { return vars_[x.index].gradient; }

  // Bytes kept for backward at this moment, by name, replays included.
  std::map<std::string, int64_t> saved_bytes() const;

 private:
  // A trivially copyable closure, stored in place.
  template <class... Args>
  class Closure {
   public:
    Closure() = default;
    template <class Fn>
    explicit Closure(const Fn& fn) {
      static_assert(std::is_trivially_copyable_v<Fn>, "capture ids, not values: Save them");
      static_assert(sizeof(Fn) <= kCapacity && alignof(Fn) <= 16);
      std::memcpy(storage_.data(), static_cast<const void*>(&fn), sizeof(Fn));
      call_ = [](const std::byte* storage, Args... args) {
        (*std::launder(reinterpret_cast<const Fn*>(storage)))(args...);
      };
    }
    void operator()(Args... args) const { call_(storage_.data(), args...); }

   private:
    static constexpr size_t kCapacity = 256;
    alignas(16) std::array<std::byte, kCapacity> storage_;
    void (*call_)(const std::byte*, Args...) = nullptr;
  };

  struct VarInfo {
    DType dtype;
    Shape shape;
    bool is_leaf = true;
    Tensor gradient;
    bool written = false;
    // Of a replay's input: the slot of the outer tape that its gradient goes to.
    std::optional<VarId> outer;
  };
  struct Kept {
    const char* name;
    int64_t bytes;  // of an object; tensors are counted by storage
    Tensor tensor;
    std::any object;
    int uses;
  };
  struct Node {
    VarId output;  // -1: an end, or a replay
    Closure<Tape&, const Tensor&> backward;
    std::vector<Saved> saves;
    int replay = -1;  // index into replays_
  };
  struct Deferred {
    std::vector<Saved> uses;
    Closure<Tape&> compute;
  };
  using Log = std::vector<std::any>;  // results of Once, in order
  struct Replay {
    const BundleFn* fn;
    std::vector<const char*> names;
    std::vector<VarId> inputs;
    std::vector<Saved> values;
    std::any state;
    std::vector<std::pair<const char*, VarId>> outputs;
    std::shared_ptr<Log> log;
    size_t first_in_log;
  };

  Saved Keep(Kept kept);
  void Use(Saved saved) { ++kept_[saved.index].uses; }
  void Release(Saved saved);
  void RunNode(Node node, WeightGradients when);
  void RunReplay(const Replay& replay, WeightGradients when);

  Context& context_;
  WeightSource& weights_;
  const Mode mode_;
  GradientSink* const gradients_;
  bool replays_ = false;
  Tape* outer_ = nullptr;  // of a replay, while it runs
  std::shared_ptr<Log> log_;
  size_t next_in_log_ = 0;
  std::vector<VarInfo> vars_;
  std::vector<Node> nodes_;
  std::vector<Kept> kept_;
  std::vector<Saved> open_saves_;  // of the op that is being recorded or run
  std::vector<Deferred> deferred_;
  std::vector<Replay> replays_recorded_;
  std::vector<std::unique_ptr<Tape>> replays_deferred_;  // whose weight gradients wait
  struct StorageUse {
    int count = 0;
    const char* name = nullptr;
    int64_t bytes = 0;
  };
  std::map<const Storage*, StorageUse> saved_storages_;
  std::map<std::string, int64_t> saved_bytes_;
};

template <class T>
Saved Tape::Save(T object, const char* name) {
  if (!keeps()) return {};
  const int64_t bytes = Bytes(object);
  return Keep({name, bytes, Tensor(), std::any(std::move(object)), 1});
}

template <class T>
const T& Tape::Load(Saved saved) const {
  const T* object = std::any_cast<T>(&kept_[saved.index].object);
  CHECK(object != nullptr) << kept_[saved.index].name << " was freed, or is of another type";
  return *object;
}

template <class BackwardFn>
Var Tape::Record(Tensor value, BackwardFn backward) {
  Var y = Input(std::move(value));
  vars_[y.id().index].is_leaf = false;
  if (keeps()) {
    nodes_.push_back(
        {y.id(), Closure<Tape&, const Tensor&>(backward), std::exchange(open_saves_, {})});
  }
  return y;
}

template <class BackwardFn>
void Tape::RecordLoss(BackwardFn backward) {
  if (!keeps()) return;
  const auto closure = [backward](Tape& tape, const Tensor&) { backward(tape); };
  nodes_.push_back({{}, Closure<Tape&, const Tensor&>(closure), std::exchange(open_saves_, {})});
}

template <class Compute>
void Tape::WeightGradient(std::initializer_list<Saved> uses, Compute compute) {
  for (const Saved saved : uses) Use(saved);
  deferred_.push_back({uses, Closure<Tape&>(compute)});
}

template <class Decide>
auto Tape::Once(Decide decide) -> decltype(decide()) {
  using Result = decltype(decide());
  if (replays_) return std::any_cast<Result>((*log_)[next_in_log_++]);
  Result result = decide();
  if (log_ != nullptr) log_->push_back(result);
  return result;
}

}  // namespace moebius
