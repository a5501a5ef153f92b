// What ops do. Each tells the context's observer its work, when it begins and when it is done: so
// time is measured where it passes. On kMeta it computes nothing: so time is planned by the code
// that will take it.
//
//   const OpScope op = context.Start(Moves("add", a, b, y));
//   if (op.is_dry()) return;
#pragma once

#include "core/tensor/tensor.h"

namespace moebius {

struct Work {
  enum class Kind {
    kProduct,  // [rows, inner] x [inner, columns]; the rows are shared out among `groups` matrices
    kAttention,  // causal: `rows` queries
    kMemory,     // as many bytes as go through it, and few operations for each
    kTransfer,   // between the device's memory and the host's: `bytes` each way, at once
  };
  const char* op = "";
  Kind kind = Kind::kMemory;
  DType dtype = DType::kF32;  // of what is multiplied
  double flops = 0;           // a multiplication and its addition are two
  int64_t bytes = 0;          // read and written, every operand once
  int64_t rows = 0, inner = 0, columns = 0, groups = 1;
};

// Told on the rank's thread. Ops and phases nest.
class WorkObserver {
 public:
  virtual ~WorkObserver() = default;
  virtual void OpBegins(const Work& work) = 0;
  virtual void OpEnds() {}

  // False: what begins now need not be told, so that an accelerator may be given it all at once
  // (Accelerator::Give).
  virtual bool IsWatching() const { return true; }

  // A part of a step that holds many ops: "update". The name is a literal.
  virtual void PhaseBegins(const char* /*name*/) {}
  virtual void PhaseEnds() {}
};

// An op, from its start to the end of the block.
class [[nodiscard]] OpScope {
 public:
  OpScope(const Work& work, bool is_dry, WorkObserver* observer)
      : observer_(observer), is_dry_(is_dry) {
    if (observer_ != nullptr) observer_->OpBegins(work);
  }
  ~OpScope() {
    if (observer_ != nullptr) observer_->OpEnds();
  }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

  bool is_dry() const { return is_dry_; }  // there is nothing to compute

 private:
  WorkObserver* const observer_;
  const bool is_dry_;
};

class [[nodiscard]] PhaseScope {
 public:
  PhaseScope(const char* name, WorkObserver* observer) : observer_(observer) {
    if (observer_ != nullptr) observer_->PhaseBegins(name);
  }
  ~PhaseScope() {
    if (observer_ != nullptr) observer_->PhaseEnds();
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  WorkObserver* const observer_;
};

// An op that reads or writes each of these tensors once; undefined ones do not count.
template <class... Tensors>
Work Moves(const char* op, const Tensors&... tensors) {
  return {.op = op, .bytes = ((tensors.defined() ? tensors.bytes() : 0) + ... + 0)};
}

}  // namespace moebius
