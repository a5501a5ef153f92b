// How accelerators of several ranks talk, from the memory of one to that of another: what a
// library such as NCCL offers, behind the plugin that knows it. Bytes are moved; sums are taken by
// a kernel of our own, so that their order is ours (parallel/device_communicator.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/tensor/accelerator.h"
#include "core/tensor/dtype.h"

namespace moebius {

// A message to (or from) a rank of the group.
struct DeviceMessage {
  int rank = 0;
  std::byte* data = nullptr;
  int64_t bytes = 0;  // none: no message
};

// parts[r * stride], r = 0 .. num_parts, in bytes: `count` elements each. F64, F32, BF16, I32, I64.
struct CombineArgs {
  const std::byte* parts = nullptr;
  int num_parts = 0;
  int64_t stride = 0;
  int64_t count = 0;
  DType dtype = DType::kF32;
  bool maximum = false;  // else the sum
  std::byte* out = nullptr;
  DType out_dtype = DType::kF32;  // F32 also where parts are BF16
};

// The accelerators of a group of ranks, each of its own rank. Work is done in the order in which it
// is given, beside the accelerator's own; all ranks give the same exchanges in one order. Of the
// thread of its rank. Addresses are of the accelerator's memory, which is kept until the work is
// done.
class DeviceGroup {
 public:
  virtual ~DeviceGroup() = default;

  // What is given next begins when the event is done.
  virtual void Follow(const DeviceEvent& event) = 0;

  // `mine` may be its own place within `all`.
  virtual void AllGather(const std::byte* mine, std::byte* all, int64_t bytes) = 0;
  virtual void Broadcast(std::byte* data, int64_t bytes, int root) = 0;
  // All of them at once, none with the own rank.
  virtual void Exchange(std::span<const DeviceMessage> send,
                        std::span<const DeviceMessage> receive) = 0;
  virtual void Copy(const std::byte* from, std::byte* to, int64_t bytes) = 0;
  // Part by part in F32 for BF16, rounded once; else in the elements' type.
  virtual void Combine(const CombineArgs& args) = 0;

  virtual std::unique_ptr<DeviceEvent> Mark() = 0;  // behind all of this

  // The first error of a call or of what it has started, in the library's words; "": none. What is
  // given after it is not done.
  virtual std::string Failure() = 0;

  // Gives up what is under way; returns in bounded time, and nothing more may be given.
  virtual void Abort() = 0;
};

class DeviceCollectives {
 public:
  // What a group's ranks know each other by; made by one of them.
  using Id = std::array<uint8_t, 128>;

  virtual ~DeviceCollectives() = default;

  virtual std::string Describe() const = 0;  // "NCCL 2.28.9"

  // Tells a device from any other of any host: ranks that share one cannot be in a group.
  virtual uint64_t device_number() const = 0;

  // False: `failure` says why.
  virtual bool NewId(Id* id, std::string* failure) = 0;

  // Returns when all ranks have joined and their connections are made. Any thread. Null: `failure`
  // says why.
  virtual std::unique_ptr<DeviceGroup> Join(const Id& id, int rank, int size,
                                            std::string* failure) = 0;

  // Called before the host waits for the accelerator's work: what that work waits for in turn may
  // be of other ranks, which may never come.
  virtual void SetBeforeWait(std::function<void()> call) = 0;
};

}  // namespace moebius
