// What ops would do. On kMeta an op computes nothing: it tells the context's observer its work,
// so that time is planned by the code that will take it.
//
//   if (context.DryRuns(Moves("add", a, b, y))) return;
#pragma once

#include "core/tensor/tensor.h"

namespace moebius {

struct Work {
  enum class Kind {
    kProduct,  // [rows, inner] x [inner, columns]; the rows are shared out among `groups` matrices
    kAttention,  // causal: `rows` queries
    kMemory,     // as many bytes as go through it, and few operations for each
  };
  const char* op = "";
  Kind kind = Kind::kMemory;
  DType dtype = DType::kF32;  // of what is multiplied
  double flops = 0;           // a multiplication and its addition are two
  int64_t bytes = 0;          // read and written, every operand once
  int64_t rows = 0, inner = 0, columns = 0, groups = 1;
};

class WorkObserver {
 public:
  virtual ~WorkObserver() = default;
  virtual void Observe(const Work& work) = 0;
};

// An op that reads or writes each of these tensors once; undefined ones do not count.
template <class... Tensors>
Work Moves(const char* op, const Tensors&... tensors) {
  return {.op = op, .bytes = ((tensors.defined() ? tensors.bytes() : 0) + ... + 0)};
}

}  // namespace moebius
