// What carries messages between two ranks of a group: threads, shared memory, MPI.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "core/base/status.h"

namespace moebius {

// A message on its way.
class Transfer {
 public:
  virtual ~Transfer() = default;
  // True when the memory is free again (a send) or filled (a receive). An error says why the two
  // sides do not fit.
  virtual absl::StatusOr<bool> Poll() = 0;
  // The process is about to end: what it would still do is given up, in bounded time.
  virtual void Abandon() {}
};

// Messages within one group, of at least a byte. Ranks are those of the group, and not the own one.
class Transport {
 public:
  virtual ~Transport() = default;

  // Null: done already. Messages from one rank to another with the same tag (below 2^15) meet
  // their receives in the order in which both are made, however they are polled.
  virtual std::unique_ptr<Transfer> Send(int to, int tag, std::span<const std::byte> bytes) = 0;
  virtual std::unique_ptr<Transfer> Receive(int from, int tag, std::span<std::byte> bytes) = 0;

  // The subgroup of `members`, in this order, which all call this with one `group` number.
  virtual std::unique_ptr<Transport> Split(int group, const std::vector<int>& members) = 0;
};

}  // namespace moebius
