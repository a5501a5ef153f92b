// All collectives, written once over messages between two ranks: what carries the messages
// (threads, MPI) cannot change a number. Every collective is a direct exchange, of size - 1
// messages a rank and stage; an all-reduce moves 2 (size - 1) / size of its bytes, the least
// possible.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/call.h"
#include "parallel/communicator.h"
#include "parallel/message_transport.h"
#include "parallel/ordered_reduction.h"
#include "parallel/progress.h"

namespace moebius {

struct MessageGroup;

class MessageCommunicator final : public Communicator {
 public:
  // `group`: a number that no other group of any of its members has. `progress` outlives this.
  MessageCommunicator(std::string name, int group, std::vector<int> members,
                      std::unique_ptr<Transport> transport, Progress* progress);

  ~MessageCommunicator() override;

  const std::string& name() const override;
  int rank() const override;
  const std::vector<int>& members() const override;

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
  Handle Carry(Call call, int peer, std::unique_ptr<Transfer> carrier) override;

 private:
  // Starts an operation; its numbers are added to `call`.
  template <class Stage>
  Handle Run(Call call, int num_stages, Stage stage);
  template <class Stage>
  Handle RunOnce(const Call& call, Stage stage);  // of one stage
  Handle Reduce(Collective collective, Reduction reduction, Elements x);

  const std::unique_ptr<MessageGroup> group_;
  int64_t sequence_ = 0;
  std::vector<int64_t> sent_, received_;  // point to point, by peer
};

}  // namespace moebius
