// Collectives on an accelerator's memory by way of the host's: what is sent is copied to the host
// and waited for, a communicator of the host sends it, and what is received is copied back in the
// order of the accelerator's work once it is waited for. So the sums and their bits, the deadlines
// and the failures are those of the communicator that it wraps.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace moebius {

class StagedCommunicator final : public Communicator {
 public:
  // Elements may lie in the memory of `accelerator`, all of an operation or none; those of the
  // host go to `host` as they are, which outlives this. A sum over one rank costs nothing.
  StagedCommunicator(Communicator& host, std::shared_ptr<Accelerator> accelerator);
  ~StagedCommunicator() override;

  const std::string& name() const override { return host_.name(); }
  int rank() const override { return host_.rank(); }
  const std::vector<int>& members() const override { return host_.members(); }

  bool Takes(const Accelerator& accelerator) const override;

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
  struct Staging;
  StagedCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<Staging> staging);

  const std::unique_ptr<Communicator> owned_;  // of a group
  Communicator& host_;
  const std::shared_ptr<Staging> staging_;
};

}  // namespace moebius
