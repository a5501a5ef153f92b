// Products by cuBLAS and copies by NVIDIA's driver: what ours are measured beside, and the limits
// of a GPU. Both are opened when the program runs (libcublas.so.13 or .12, and libcuda.so.1), so
// that it is built, and runs, where they are not.
#pragma once

#include <memory>
#include <string>

#include "core/base/status.h"
#include "core/tensor/context.h"

namespace moebius {

// On the stream of one context, which outlives it.
class Cublas {
 public:
  // NotFound: the context is not on a GPU, or a library is not there.
  static absl::StatusOr<std::unique_ptr<Cublas>> Open(Context& context);
  ~Cublas();

  std::string Describe() const;  // "cuBLAS 13.0.2"

  // c [m, n] = a b, with sums in F32: a is x [m, k], or where transposed x [k, m]; b as well.
  // a and b are both F32 or both BF16, c that or F32.
  struct Operand {
    const Tensor& x;
    bool transposed = false;
  };
  void Product(const Operand& a, const Operand& b, const Tensor& c);

  void Copy(const Tensor& from, const Tensor& to);  // of as many bytes

 private:
  struct Functions;
  Cublas(Context& context, std::unique_ptr<Functions> functions, void* handle);

  Context& context_;
  const std::unique_ptr<Functions> functions_;
  void* const handle_;
};

}  // namespace moebius
