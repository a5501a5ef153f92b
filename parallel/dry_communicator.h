// A rank without the other ranks, for dry runs on kMeta: nothing is sent, every operation is done
// at once, and an observer is told of it. Numbers in host memory stay as they are.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor/arena.h"
#include "parallel/call.h"
#include "parallel/communicator.h"

namespace moebius {

class CallObserver {
 public:
  virtual ~CallObserver() = default;
  // The rank starts `call` within the group of `members` (ranks of the world), and waits for the
  // one that this number names.
  virtual int64_t Started(const Call& call, const std::vector<int>& members) = 0;
  virtual void Waited(int64_t call) = 0;
};

class DryCommunicator final : public Communicator {
 public:
  struct Parts {
    Arena& messages;                   // on kMeta: what operations need beside their operands
    CallObserver* observer = nullptr;  // both outlive the communicator
  };
  // `rank` of the world of `size` ranks.
  DryCommunicator(int rank, int size, const Parts& parts);

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
  DryCommunicator(std::string name, int rank, std::vector<int> members, const Parts& parts)
      : name_(std::move(name)), rank_(rank), members_(std::move(members)), parts_(parts) {}

  Handle Start(Collective collective, Elements x, int64_t scratch_bytes, int peer = 0);

  const std::string name_;
  const int rank_;
  const std::vector<int> members_;
  const Parts parts_;
};

}  // namespace moebius
