// Collectives from the memory of one accelerator to that of another (kernels/device_collectives.h:
// NCCL), with the contract of communicator.h: sums in rank order, deadlines, boards, sentences.
// Elements of the host go through the host's communicator of the same group.
//
// * The host does not wait. An exchange begins when the accelerator's work that was there at its
//   start is done, on a stream of its group; Handle::Wait only orders the accelerator's further
//   work behind it. Before the first exchange of a group has joined its devices (device_link.h)
//   Wait waits for it as a host does.
// * Memory: operands are kept until Handle::Wait, as always. From then on whatever is given to the
//   accelerator, and every exchange that starts, comes behind the exchange: memory given back may
//   be handed out again at once, though the exchange is still under way. What sums need meanwhile
//   is the communicator's own, at most 32 MiB for a sum that is under way.
// * Failure: an exchange that hangs is noticed where the host waits for the accelerator next, or
//   for any operation; its deadline counts from there. NCCL's errors are told in its words.
// * Messages between two ranks have a link for each direction: they meet in order, and wait for
//   nothing else.
// * Exchanges of two groups may be under way together: that needs room for both on the devices, as
//   NCCL says of its communicators, which there is for the few blocks that it takes.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor/arena.h"
#include "kernels/device_collectives.h"
#include "parallel/communicator.h"
#include "parallel/device_exchange.h"
#include "parallel/device_link.h"
#include "parallel/device_reduction.h"

namespace moebius {

class DeviceCommunicator final : public Communicator {
 public:
  // `host`: the ranks, which have devices of their own each; it outlives this. A sum over one rank
  // costs nothing.
  DeviceCommunicator(Communicator& host, std::shared_ptr<Accelerator> accelerator,
                     std::shared_ptr<DeviceCollectives> collectives);
  ~DeviceCommunicator() override;  // returns when what was waited for is done

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
  Handle Barrier() override { return host_.Barrier(); }
  Handle Send(Elements x, int to) override;
  Handle Receive(Elements x, int from) override;
  Handle Carry(Call call, int peer, std::unique_ptr<Transfer> carrier) override {
    return host_.Carry(call, peer, std::move(carrier));
  }
  std::unique_ptr<Communicator> Split(const std::vector<int>& ranks,
                                      const std::string& name) override;

 private:
  struct Shared;    // by the groups of a rank
  class Operation;  // what a Handle waits for
  using Give = DeviceExchange::Give;

  DeviceCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<Shared> shared);

  bool IsHosts(const Elements& x) const;
  Handle Reduce(Elements x, bool maximum);
  Handle CopyAlone(const Elements& from, const Elements& to);  // among one rank
  Handle Start(const Call& call, int64_t scratch_bytes, Give give);
  Handle StartOn(DeviceLink& link, const Call& call, int peer, int64_t scratch_bytes, Give give);
  DeviceReduction Reduction(DType dtype, DType out_dtype, bool maximum = false) const;

  DeviceLink& GroupLink();
  DeviceLink& LinkTo(int rank);
  DeviceLink& LinkFrom(int rank);
  std::shared_ptr<DeviceCollectives::Id> NewId() const;

  void Await(Handle handle);  // the accelerator's work waits for it
  void FinishAwaited();

  const std::unique_ptr<Communicator> owned_;  // of a group
  Communicator& host_;
  const std::shared_ptr<Shared> shared_;
  std::unique_ptr<DeviceLink> group_link_;
  std::map<int, std::unique_ptr<DeviceLink>> links_to_, links_from_;
  std::deque<Handle> awaited_;  // in the order of their waits
};

}  // namespace moebius
