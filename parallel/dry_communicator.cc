#include "parallel/dry_communicator.h"

#include <algorithm>
#include <numeric>

namespace moebius {
namespace {

class DryOperation final : public Operation {
 public:
  DryOperation(std::shared_ptr<Storage> scratch, CallObserver* observer, int64_t call)
      : scratch_(std::move(scratch)), observer_(observer), call_(call) {}

  bool Poll() override { return true; }
  void Wait() override {
    if (observer_ != nullptr) observer_->Waited(call_);
  }

 private:
  const std::shared_ptr<Storage> scratch_;
  CallObserver* const observer_;
  const int64_t call_;
};

std::vector<int> Numbered(int size) {
  std::vector<int> ranks(size);
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

int64_t BytesOf(Elements x) { return x.count * SizeOf(x.dtype); }

}  // namespace

DryCommunicator::DryCommunicator(int rank, int size, const Parts& parts)
    : DryCommunicator("world", rank, Numbered(size), parts) {
  CHECK(rank >= 0 && rank < size) << "rank " << rank << " of " << size;
}

Handle DryCommunicator::Start(Collective collective, Elements x, int64_t scratch_bytes, int peer) {
  if (size() == 1) return Handle();
  auto scratch = scratch_bytes > 0 ? parts_.messages.Allocate(scratch_bytes, "messages") : nullptr;
  const Call call{.collective = collective,
                  .dtype = x.dtype,
                  .root = peer,
                  .count = x.count,
                  .bytes = BytesOf(x)};
  const int64_t number = parts_.observer == nullptr ? 0 : parts_.observer->Started(call, members_);
  return Handle(std::make_shared<DryOperation>(std::move(scratch), parts_.observer, number));
}

// The scratch is that of MessageCommunicator.
Handle DryCommunicator::AllReduce(Elements x) {
  return Start(Collective::kAllReduce, x, BytesOf(x));
}

Handle DryCommunicator::AllReduceMax(Elements x) {
  return Start(Collective::kAllReduceMax, x, BytesOf(x));
}

Handle DryCommunicator::AllGather(Elements mine, Elements all) {
  CHECK_EQ(all.count, size() * mine.count);
  return Start(Collective::kAllGather, mine, 0);
}

Handle DryCommunicator::ReduceScatter(Elements all, Elements mine) {
  CHECK_EQ(all.count, size() * mine.count);
  return Start(Collective::kReduceScatter, all, BytesOf(all));
}

Handle DryCommunicator::AllToAllV(const RowsByRank& send, const RowsByRank& receive,
                                  int64_t /*row_size*/) {
  CHECK_EQ(std::ssize(send.counts), size());
  CHECK_EQ(std::ssize(receive.counts), size());
  return Start(Collective::kAllToAllV, send.rows, 0);
}

Handle DryCommunicator::Broadcast(Elements x, int root) {
  return Start(Collective::kBroadcast, x, 0, root);
}

Handle DryCommunicator::Barrier() { return Start(Collective::kBarrier, {}, 0); }

Handle DryCommunicator::Send(Elements x, int to) {
  return Start(Collective::kSend, x, 0, members_[to]);
}

Handle DryCommunicator::Receive(Elements x, int from) {
  return Start(Collective::kReceive, x, 0, members_[from]);
}

std::unique_ptr<Communicator> DryCommunicator::Split(const std::vector<int>& ranks,
                                                     const std::string& name) {
  const auto self = std::ranges::find(ranks, rank_);
  CHECK(self != ranks.end()) << "rank " << rank_ << " is not in its own group";
  std::vector<int> in_world;
  for (const int rank : ranks) in_world.push_back(members_[rank]);
  return std::unique_ptr<Communicator>(new DryCommunicator(
      name, static_cast<int>(self - ranks.begin()), std::move(in_world), parts_));
}

}  // namespace moebius
