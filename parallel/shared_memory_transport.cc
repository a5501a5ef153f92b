#include "parallel/shared_memory_transport.h"

#include "core/base/check.h"
#include "parallel/lane_end.h"

namespace moebius {
namespace {

class SendTransfer final : public Transfer {
 public:
  SendTransfer(LaneEnd* end, const Outgoing& message) : end_(end), message_(message) {
    end_->Enqueue(message_);
  }
  ~SendTransfer() override { end_->Forget(message_); }
  absl::StatusOr<bool> Poll() override { return end_->Continue(message_); }

 private:
  LaneEnd* const end_;
  Outgoing message_;
};

class ReceiveTransfer final : public Transfer {
 public:
  ReceiveTransfer(LaneEnd* end, const Incoming& message) : end_(end), message_(message) {
    end_->Expect(message_);
  }
  ~ReceiveTransfer() override { end_->Forget(message_); }
  absl::StatusOr<bool> Poll() override { return end_->Continue(message_); }

 private:
  LaneEnd* const end_;
  Incoming message_;
};

}  // namespace

class LaneEnds {
 public:
  LaneEnds(std::unique_ptr<HostMemory> memory, LongMessages long_messages)
      : memory_(std::move(memory)), ends_(memory_->num_ranks()) {
    const bool reads = long_messages == LongMessages::kReadIfAllowed;
    for (int r = 0; r < memory_->num_ranks(); ++r) {
      if (memory_->Reaches(r)) ends_[r] = std::make_unique<LaneEnd>(memory_.get(), r, reads);
    }
  }

  LaneEnd* end(int rank) const { return ends_[rank].get(); }  // null: not reached

 private:
  const std::unique_ptr<HostMemory> memory_;
  std::vector<std::unique_ptr<LaneEnd>> ends_;
};

std::shared_ptr<LaneEnds> MakeLaneEnds(std::unique_ptr<HostMemory> memory,
                                       LongMessages long_messages) {
  return std::make_shared<LaneEnds>(std::move(memory), long_messages);
}

SharedMemoryTransport::SharedMemoryTransport(int group, std::vector<int> members,
                                             std::shared_ptr<LaneEnds> ends,
                                             std::unique_ptr<Transport> others)
    : group_(group),
      members_(std::move(members)),
      ends_(std::move(ends)),
      others_(std::move(others)) {}

std::unique_ptr<Transfer> SharedMemoryTransport::Send(int to, int tag,
                                                      std::span<const std::byte> bytes) {
  LaneEnd* const end = ends_->end(members_[to]);
  if (end == nullptr) return others().Send(to, tag, bytes);
  const Outgoing message = {.key = {group_, tag}, .rest = bytes};
  if (end->SendAtOnce(message)) return nullptr;
  return std::make_unique<SendTransfer>(end, message);
}

std::unique_ptr<Transfer> SharedMemoryTransport::Receive(int from, int tag,
                                                         std::span<std::byte> bytes) {
  LaneEnd* const end = ends_->end(members_[from]);
  if (end == nullptr) return others().Receive(from, tag, bytes);
  return std::make_unique<ReceiveTransfer>(
      end, Incoming{.key = {group_, tag}, .rest = bytes, .status = {}});
}

std::unique_ptr<Transport> SharedMemoryTransport::Split(int group,
                                                        const std::vector<int>& members) {
  std::vector<int> in_world;
  for (const int member : members) in_world.push_back(members_[member]);
  auto others = others_ == nullptr ? nullptr : others_->Split(group, members);
  return std::make_unique<SharedMemoryTransport>(group, std::move(in_world), ends_,
                                                 std::move(others));
}

Transport& SharedMemoryTransport::others() {
  CHECK(others_ != nullptr) << "group " << group_ << " has members that nothing reaches";
  return *others_;
}

}  // namespace moebius
