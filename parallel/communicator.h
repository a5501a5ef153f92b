// How the ranks of one group talk. Every operation starts at once and returns a Handle; nothing may
// touch its memory before Handle::Wait has returned.
//
//   communicator.AllReduce(gradient).Wait();
//
// * The ranks of a group call the same operations in the same order; sizes agree where stated.
//   Operations of different groups may be started and waited for in any order.
// * Sums are taken in rank order, element by element (BF16: added up in F32 and rounded once). So
//   all ranks hold the same bits, and ranks that are threads the same as ranks that are processes.
// * Failure: no operation returns an error. A wait that passes its deadline, and ranks that do not
//   call the same thing, end the process with exit code 1, after the failure handler of the rank
//   (parallel/progress.h) has recorded one sentence: group, operation, number, and who is missing.
//   What a step has half done cannot be saved, and an op deep in a tape has nowhere to return to.
// * A communicator belongs to the thread of its rank. Progress is made in Wait and Poll only.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor/tensor.h"
#include "parallel/call.h"
#include "parallel/message_transport.h"

namespace moebius {

// Elements that lie contiguously and outlive the operation they are passed to. Those of the host
// any communicator takes; those of an accelerator one that says so (Takes). Those of a tensor on
// kMeta have no data: only a dry run's communicator takes them.
struct Elements {
  std::byte* data = nullptr;
  int64_t count = 0;
  DType dtype = DType::kU8;
  Accelerator* accelerator = nullptr;  // whose memory it is; null: the host's

  Elements() = default;
  Elements(std::byte* data, int64_t count, DType dtype) : data(data), count(count), dtype(dtype) {}
  Elements(const Tensor& x)  // NOLINT: a tensor is elements
      : data(x.device().is_meta() ? nullptr : x.address()),
        count(x.size()),
        dtype(x.dtype()),
        accelerator(x.storage()->accelerator()) {}
  template <class T, size_t N>
  Elements(std::span<T, N> x)  // NOLINT: a span is elements
      : data(reinterpret_cast<std::byte*>(x.data())),
        count(static_cast<int64_t>(x.size())),
        dtype(kDTypeOf<T>) {}

  // REQUIRES: they are the host's.
  std::span<std::byte> bytes() const {
    CHECK(accelerator == nullptr) << "elements of an accelerator";
    return {data, static_cast<size_t>(count * SizeOf(dtype))};
  }
  Elements Slice(int64_t begin, int64_t end) const {
    Elements part = *this;
    part.data += begin * SizeOf(dtype);
    part.count = end - begin;
    return part;
  }
};

// Rows for (or from) every rank of a group, those of rank 0 first; counts[r] >= 0 rows of rank r,
// read when the operation starts.
struct RowsByRank {
  Elements rows;
  std::span<const int32_t> counts;
};

// What a Handle waits for; made by implementations of Communicator.
class Operation {
 public:
  virtual ~Operation() = default;
  virtual bool Poll() = 0;
  virtual void Wait() = 0;
};

// A started operation. REQUIRES: waited for before it is destroyed.
class [[nodiscard]] Handle {
 public:
  Handle() = default;  // nothing to wait for
  explicit Handle(std::shared_ptr<Operation> operation) : operation_(std::move(operation)) {}
  Handle(Handle&&) = default;
  Handle& operator=(Handle&& other) noexcept {
    CHECK(operation_ == nullptr) << "an operation was started and not waited for";
    operation_ = std::move(other.operation_);
    return *this;
  }
  ~Handle() { CHECK(operation_ == nullptr) << "an operation was started and not waited for"; }

  // Lets everything that this rank has started go on. True when this operation is done.
  bool Poll() { return operation_ == nullptr || operation_->Poll(); }
  void Wait() {
    if (const auto operation = std::exchange(operation_, nullptr)) operation->Wait();
  }

 private:
  std::shared_ptr<Operation> operation_;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual const std::string& name() const = 0;
  virtual int rank() const = 0;  // within the group
  int size() const { return static_cast<int>(members().size()); }
  virtual const std::vector<int>& members() const = 0;  // ranks of the world, in group order

  // Sum and maximum over the ranks, in place. F64, F32, BF16, I32, I64; equal counts.
  virtual Handle AllReduce(Elements x) = 0;
  virtual Handle AllReduceMax(Elements x) = 0;

  // all [size * n] = the `mine` [n] of every rank. `mine` may be its own place within `all`.
  virtual Handle AllGather(Elements mine, Elements all) = 0;

  // mine [n] = this rank's part of the sum of `all` [size * n] over the ranks. `mine` may be its
  // own place within `all`. Where `all` is BF16, `mine` may be F32: the sum is then not rounded.
  virtual Handle ReduceScatter(Elements all, Elements mine) = 0;

  // Rows of `row_size` elements. REQUIRES: receive.counts[r] here is what rank r sends here: where
  // that is not known, exchange the counts first. Empty parts are ordinary.
  virtual Handle AllToAllV(const RowsByRank& send, const RowsByRank& receive, int64_t row_size) = 0;

  virtual Handle Broadcast(Elements x, int root) = 0;
  virtual Handle Barrier() = 0;

  // Between two ranks: the i-th Send of one meets the i-th Receive of the other. Send is done when
  // `x` may be written again; it may have to wait for the receiver.
  virtual Handle Send(Elements x, int to) = 0;
  virtual Handle Receive(Elements x, int from) = 0;

  // Whether elements may lie in the memory of `accelerator`.
  virtual bool Takes(const Accelerator&) const { return false; }

  // Starts an operation of this group that `carrier` carries out: it counts, is shown, is watched
  // and fails as those above. `call`: without its numbers; `peer`: the other rank of a message.
  virtual Handle Carry(Call call, int peer, std::unique_ptr<Transfer> carrier);

  // Every rank of this group calls it, and passes the ranks (of this group) that its own new group
  // has, itself among them, in ascending order; blocks. The new group must not outlive the world.
  virtual std::unique_ptr<Communicator> Split(const std::vector<int>& ranks,
                                              const std::string& name) = 0;
};

inline Handle Communicator::Carry(Call call, int, std::unique_ptr<Transfer>) {
  CHECK(false) << "group " << name() << " carries no " << call.ToString();
}

}  // namespace moebius
