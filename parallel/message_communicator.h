// All collectives, written once over messages between two ranks: what carries the messages
// (threads, MPI) cannot change a number. Every collective is a direct exchange, of size - 1
// messages a rank and stage; an all-reduce moves 2 (size - 1) / size of its bytes, the least
// possible.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/ordered_reduction.h"
#include "parallel/progress.h"

namespace moebius {

// A message on its way.
class Transfer {
 public:
  virtual ~Transfer() = default;
  // True when the memory is free again (a send) or filled (a receive). An error says why the two
  // sides do not fit.
  virtual absl::StatusOr<bool> Poll() = 0;
};

// Messages within one group. Ranks are those of the group.
class Transport {
 public:
  virtual ~Transport() = default;

  // Messages from one rank to another with the same tag (below 2^15) arrive in order.
  virtual std::unique_ptr<Transfer> Send(int to, int tag, std::span<const std::byte> bytes) = 0;
  virtual std::unique_ptr<Transfer> Receive(int from, int tag, std::span<std::byte> bytes) = 0;

  // The subgroup of `members`, in this order, which all call this with one `group` number.
  virtual std::unique_ptr<Transport> Split(int group, const std::vector<int>& members) = 0;
};

class MessageOperation;

class MessageCommunicator final : public Communicator {
 public:
  // `group`: a number that no other group of any of its members has. `progress` outlives this.
  MessageCommunicator(std::string name, int group, std::vector<int> members,
                      std::unique_ptr<Transport> transport, Progress* progress);

  const std::string& name() const override { return name_; }
  int rank() const override { return rank_; }
  const std::vector<int>& members() const override { return members_; }

  Handle AllReduce(Elements x) override;
  Handle AllReduceMax(Elements x) override;
  Handle AllGather(Elements mine, Elements all) override;
  Handle ReduceScatter(Elements all, Elements mine) override;
  Handle AllToAllV(const RowsByRank& send, const RowsByRank& receive, int64_t row_size) override;
  Handle Broadcast(Elements x, int root) override;
  Handle Barrier() override;
  Handle Send(Elements x, int to) override;
  Handle Receive(Elements x, int from) override;
  std::unique_ptr<Communicator> Split(const std::vector<int>& ranks,
                                      const std::string& name) override;

 private:
  friend class MessageOperation;

  std::shared_ptr<MessageOperation> NewOperation(const Call& call);
  Handle Run(std::shared_ptr<MessageOperation> operation);
  Handle Reduce(const Call& call, Reduction reduction, Elements x);

  const std::string name_;
  const int group_;
  const std::vector<int> members_;
  const int rank_;
  const std::unique_ptr<Transport> transport_;
  Progress* const progress_;
  int64_t sequence_ = 0;
  std::vector<int64_t> sent_, received_;  // point to point, by peer
};

}  // namespace moebius
