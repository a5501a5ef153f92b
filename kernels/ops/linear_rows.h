// What backward needs of the rows of a product. For ops that are made of products.
#pragma once

#include "core/tape/tape.h"
#include "kernels/ops/linear.h"

namespace moebius::ops {

// In place of what is undefined stands another save of the same op.
class SavedRows {
 public:
  SavedRows(Tape& tape, const ProductRows& rows, Saved other);

  ProductRows Load(const Tape& tape) const;

  Saved offsets, tokens;

 private:
  bool has_offsets_, has_tokens_;
};

// An operand of a weight's gradient: row r of a product is its row tokens[r], or r.
struct SavedOperand {
  Saved tensor;
  bool by_tokens = false;
};

// Within a backward closure: the gradient of w (+)= dy^T x, once the tape comes to it.
void AddWeightGradient(Tape& tape, const SavedOperand& dy, const SavedOperand& x,
                       const SavedRows& rows, Parameter* w);

// LinearOfRows, whose product makes h = silu(gate) * y as well (kernels::LinearArgs), if they are
// defined.
struct SwiGluOfProduct {
  Tensor gate = {}, h = {};  // [R, N]
};
Var LinearOfRows(Tape& tape, const Var& x, const ProductRows& rows, Parameter* w,
                 const SwiGluOfProduct& swiglu);

}  // namespace moebius::ops
