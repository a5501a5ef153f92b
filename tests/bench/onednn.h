// The same products by plain calls of oneDNN, on as many threads as ours, pinned alike.
#pragma once

#include <memory>
#include <string>

#include "core/tensor/context.h"

namespace moebius {

std::string OneDnnVersion();

// One product, made once and run often. Sums are in F32; results have the dtype of their tensor.
class OneDnnProduct {
 public:
  // y [R, N] = x [R, K] w^T, R > 0. w [N, K] F32 is packed in advance, in the format that oneDNN
  // asks for ("any") and in the dtype of x.
  static OneDnnProduct Forward(const Tensor& x, const Tensor& w, const Tensor& y, Context& context);
  // dx [R, K] = dy [R, N] w, w packed likewise.
  static OneDnnProduct InputGradient(const Tensor& dy, const Tensor& w, const Tensor& dx,
                                     Context& context);
  // dw [N, K] = dy^T x, both row-major as they are.
  static OneDnnProduct WeightGradient(const Tensor& dy, const Tensor& x, const Tensor& dw,
                                      Context& context);
  OneDnnProduct(OneDnnProduct&&) noexcept;
  ~OneDnnProduct();

  void Run() const;  // blocks

 private:
  struct Parts;
  struct Operand;
  static OneDnnProduct Of(const Operand& a, const Operand& b, const Tensor& c, Context& context);
  explicit OneDnnProduct(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace moebius
