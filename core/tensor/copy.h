// Numbers on their way between the host and the device that a context computes on. On the CPU the
// two are one memory: a tensor is its own host copy, and nothing waits.
//
//   const Tensor numbers = EmptyOnHost(DType::kI32, {n}, "plan", context);
//   ... write numbers.data<int32_t>() ...
//   const Tensor x = ToDevice(numbers, "plan", context);
//
// Copies to and from an accelerator are made in the order of its work, behind the caller's back;
// the host's memory is held until they are done. kMeta: nothing is moved.
#pragma once

#include <span>

#include "core/tensor/context.h"

namespace moebius {

// To zero bytes.
void Clear(const Tensor& x);

// The same bytes. Nothing is done where both are one memory. REQUIRES: the same number of bytes;
// accelerators of one rank. The host reads `to` after Context::Wait, and writes `from` after it.
void Copy(const Tensor& from, const Tensor& to);

// The same in the order of a stream beside the accelerator's work. REQUIRES: one of both lies on
// the accelerator; its own work is held back until the copy is done (SideStream::Mark) before the
// host waits for it.
void Copy(const Tensor& from, const Tensor& to, SideStream& stream);

// Bytes at an offset of one tensor to an offset of another, on one device. Pieces do not overlap.
struct CopyPiece {
  int64_t from, to, bytes;
};
void CopyPieces(const Tensor& from, const Tensor& to, std::span<const CopyPiece> pieces,
                Context& context);

// Uninitialised, for the host to write or read.
Tensor EmptyOnHost(DType dtype, const Shape& shape, const char* name, Context& context);

// Where the host writes what `x` is to hold: `x` itself on the CPU. Copy it to `x` then.
Tensor HostSide(const Tensor& x, Context& context);

// What the host has written, on the device; not to be written again before Context::Wait.
Tensor ToDevice(const Tensor& x, const char* name, Context& context);

// For the host to read: at once, having waited; or once Context::Wait has returned, so that many
// are waited for together.
Tensor ToHost(const Tensor& x, Context& context);
Tensor ToHostLater(const Tensor& x, Context& context);

}  // namespace moebius
