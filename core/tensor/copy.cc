#include "core/tensor/copy.h"

#include <cstring>

namespace moebius {
namespace {

void HoldHostMemory(const Tensor& x, Accelerator& accelerator) {
  if (x.device().is_cpu()) accelerator.Hold(x.storage());
}

}  // namespace

void Clear(const Tensor& x) {
  if (x.device().is_meta() || x.bytes() == 0) return;
  if (x.device().is_cuda()) return x.storage()->accelerator()->Clear(x.address(), x.bytes());
  std::memset(x.raw(), 0, static_cast<size_t>(x.bytes()));
}

void Copy(const Tensor& from, const Tensor& to) {
  CHECK_EQ(from.bytes(), to.bytes());
  if (from.device().is_meta() || from.bytes() == 0 || from.address() == to.address()) return;
  const Tensor& there = from.device().is_cuda() ? from : to;
  if (there.device().is_cpu()) {
    std::memcpy(to.raw(), from.raw(), static_cast<size_t>(from.bytes()));
    return;
  }
  Accelerator& accelerator = *there.storage()->accelerator();
  accelerator.Copy(from.address(), to.address(), from.bytes());
  HoldHostMemory(from, accelerator);
  HoldHostMemory(to, accelerator);
}

void Copy(const Tensor& from, const Tensor& to, SideStream& stream) {
  CHECK_EQ(from.bytes(), to.bytes());
  if (from.bytes() == 0) return;
  const Tensor& there = from.device().is_cuda() ? from : to;
  CHECK(there.device().is_cuda()) << "no copy of an accelerator";
  stream.Copy(from.address(), to.address(), from.bytes());
  HoldHostMemory(from, *there.storage()->accelerator());
  HoldHostMemory(to, *there.storage()->accelerator());
}

void CopyPieces(const Tensor& from, const Tensor& to, std::span<const CopyPiece> pieces,
                Context& context) {
  CHECK(from.device() == to.device()) << "pieces of two devices";
  if (from.device().is_meta()) return;
  if (from.device().is_cuda()) {
    for (const CopyPiece& piece : pieces) {
      if (piece.bytes == 0) continue;
      context.accelerator()->Copy(from.address() + piece.from, to.address() + piece.to,
                                  piece.bytes);
    }
    return;
  }
  context.pool().For(std::ssize(pieces), [&](int64_t i) {
    const CopyPiece& piece = pieces[i];
    if (piece.bytes == 0) return;
    std::memcpy(to.raw() + piece.to, from.raw() + piece.from, static_cast<size_t>(piece.bytes));
  });
}

Tensor EmptyOnHost(DType dtype, const Shape& shape, const char* name, Context& context) {
  if (context.accelerator() == nullptr) return context.Empty(dtype, shape, name);
  return context.Empty(dtype, shape, name, MemoryTier::kHost);
}

Tensor HostSide(const Tensor& x, Context& context) {
  return x.device().is_cuda() ? EmptyOnHost(x.dtype(), x.shape(), "copies", context) : x;
}

Tensor ToDevice(const Tensor& x, const char* name, Context& context) {
  if (context.accelerator() == nullptr) return x;
  const Tensor there = context.Empty(x.dtype(), x.shape(), name);
  Copy(x, there);
  return there;
}

Tensor ToHost(const Tensor& x, Context& context) {
  const Tensor here = ToHostLater(x, context);
  if (x.device().is_cuda()) context.Wait();
  return here;
}

Tensor ToHostLater(const Tensor& x, Context& context) {
  const Tensor here = HostSide(x, context);
  Copy(x, here);
  return here;
}

}  // namespace moebius
