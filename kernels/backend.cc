#include "kernels/backend.h"

#include "kernels/cpu/backend.h"
#include "kernels/reference/backend.h"

namespace moebius::kernels {

const Backend& BackendFor(DType dtype, const Context& ctx) {
  if (dtype == DType::kF64) return reference::kBackend;
  return ctx.accelerator() != nullptr ? ctx.accelerator()->kernels() : cpu::kBackend;
}

}  // namespace moebius::kernels
