#include "parallel/device_communicator.h"

#include <algorithm>

namespace moebius {
namespace {

int64_t BytesOf(const Elements& x) { return x.count * SizeOf(x.dtype); }

Call CallOf(Collective collective, const Elements& x, int64_t count) {
  return {.collective = collective, .dtype = x.dtype, .count = count, .bytes = BytesOf(x)};
}

// Where the rows of each rank lie, as messages.
std::vector<DeviceMessage> MessagesOf(const RowsByRank& x, int64_t row_size) {
  std::vector<DeviceMessage> messages;
  std::byte* data = x.rows.data;
  for (size_t r = 0; r < x.counts.size(); ++r) {
    const int64_t bytes = x.counts[r] * row_size * SizeOf(x.rows.dtype);
    messages.push_back({static_cast<int>(r), data, bytes});
    data += bytes;
  }
  CHECK_LE(data - x.rows.data, BytesOf(x.rows)) << "more rows counted than there are";
  return messages;
}

}  // namespace

struct DeviceCommunicator::Shared {
  Shared(std::shared_ptr<Accelerator> owner, std::shared_ptr<DeviceCollectives> collectives)
      : accelerator(std::move(owner)),
        collectives(std::move(collectives)),
        arena("exchange", {DeviceKind::kCuda, 0}, 0, accelerator) {
    this->collectives->SetBeforeWait([this] {
      for (DeviceCommunicator* communicator : communicators) communicator->FinishAwaited();
    });
  }
  ~Shared() { collectives->SetBeforeWait(nullptr); }

  const std::shared_ptr<Accelerator> accelerator;
  const std::shared_ptr<DeviceCollectives> collectives;
  Arena arena;
  std::vector<DeviceCommunicator*> communicators;
};

class DeviceCommunicator::Operation final : public moebius::Operation {
 public:
  Operation(std::shared_ptr<DeviceExchange> exchange, Handle host, DeviceCommunicator& communicator)
      : exchange_(std::move(exchange)), host_(std::move(host)), communicator_(communicator) {}

  bool Poll() override { return host_.Poll(); }
  void Wait() override {
    if (exchange_->end() == nullptr) {
      host_.Wait();
    } else {
      exchange_->end()->HoldBackAccelerator();
      communicator_.Await(std::move(host_));
    }
    exchange_->GiveBackScratch();
  }

 private:
  const std::shared_ptr<DeviceExchange> exchange_;
  Handle host_;
  DeviceCommunicator& communicator_;
};

DeviceCommunicator::DeviceCommunicator(Communicator& host, std::shared_ptr<Accelerator> accelerator,
                                       std::shared_ptr<DeviceCollectives> collectives)
    : host_(host),
      shared_(std::make_shared<Shared>(std::move(accelerator), std::move(collectives))) {
  shared_->communicators.push_back(this);
}

DeviceCommunicator::DeviceCommunicator(std::unique_ptr<Communicator> host,
                                       std::shared_ptr<Shared> shared)
    : owned_(std::move(host)), host_(*owned_), shared_(std::move(shared)) {
  shared_->communicators.push_back(this);
}

DeviceCommunicator::~DeviceCommunicator() {
  FinishAwaited();
  std::erase(shared_->communicators, this);
}

bool DeviceCommunicator::Takes(const Accelerator& accelerator) const {
  return &accelerator == shared_->accelerator.get();
}

bool DeviceCommunicator::IsHosts(const Elements& x) const {
  CHECK(x.accelerator == nullptr || Takes(*x.accelerator)) << "another device";
  return x.accelerator == nullptr;
}

void DeviceCommunicator::Await(Handle handle) {
  while (!awaited_.empty() && awaited_.front().Poll()) {
    awaited_.front().Wait();
    awaited_.pop_front();
  }
  awaited_.push_back(std::move(handle));
}

void DeviceCommunicator::FinishAwaited() {
  for (Handle& handle : std::exchange(awaited_, {})) handle.Wait();
}

// --- links ---

std::shared_ptr<DeviceCollectives::Id> DeviceCommunicator::NewId() const {
  auto id = std::make_shared<DeviceCollectives::Id>();
  std::string failure;
  if (!shared_->collectives->NewId(id.get(), &failure)) {
    EndProcess(absl::StrCat("group ", name(), ": ", failure), 1);
  }
  return id;
}

DeviceLink& DeviceCommunicator::GroupLink() {
  if (group_link_ == nullptr) {
    auto id = rank() == 0 ? NewId() : std::make_shared<DeviceCollectives::Id>();
    Handle agreed = host_.Broadcast(std::span(*id), 0);
    group_link_ = std::make_unique<DeviceLink>(*shared_->collectives, rank(), size(), std::move(id),
                                               std::move(agreed));
  }
  return *group_link_;
}

DeviceLink& DeviceCommunicator::LinkTo(int rank) {
  std::unique_ptr<DeviceLink>& link = links_to_[rank];
  if (link == nullptr) {
    auto id = NewId();
    Handle agreed = host_.Send(std::span(*id), rank);
    link =
        std::make_unique<DeviceLink>(*shared_->collectives, 0, 2, std::move(id), std::move(agreed));
  }
  return *link;
}

DeviceLink& DeviceCommunicator::LinkFrom(int rank) {
  std::unique_ptr<DeviceLink>& link = links_from_[rank];
  if (link == nullptr) {
    auto id = std::make_shared<DeviceCollectives::Id>();
    Handle agreed = host_.Receive(std::span(*id), rank);
    link =
        std::make_unique<DeviceLink>(*shared_->collectives, 1, 2, std::move(id), std::move(agreed));
  }
  return *link;
}

Handle DeviceCommunicator::StartOn(DeviceLink& link, const Call& call, int peer,
                                   int64_t scratch_bytes, Give give) {
  std::shared_ptr<Storage> scratch;
  if (scratch_bytes > 0) scratch = shared_->arena.Allocate(scratch_bytes, "sums");
  auto exchange = std::make_shared<DeviceExchange>(link, shared_->accelerator->Mark(),
                                                   std::move(scratch), std::move(give));
  Handle host = host_.Carry(call, peer, CarrierOf(exchange));
  return Handle(std::make_shared<Operation>(std::move(exchange), std::move(host), *this));
}

Handle DeviceCommunicator::Start(const Call& call, int64_t scratch_bytes, Give give) {
  return StartOn(GroupLink(), call, 0, scratch_bytes, std::move(give));
}

Handle DeviceCommunicator::CopyAlone(const Elements& from, const Elements& to) {
  CHECK_EQ(BytesOf(from), BytesOf(to));
  if (from.data != to.data && from.count > 0) {
    shared_->accelerator->Copy(from.data, to.data, BytesOf(from));
  }
  return Handle();
}

// --- collectives ---

DeviceReduction DeviceCommunicator::Reduction(DType dtype, DType out_dtype, bool maximum) const {
  return {
      .rank = rank(), .size = size(), .dtype = dtype, .out_dtype = out_dtype, .maximum = maximum};
}

Handle DeviceCommunicator::AllReduce(Elements x) {
  return IsHosts(x) ? host_.AllReduce(x) : Reduce(x, /*maximum=*/false);
}

Handle DeviceCommunicator::AllReduceMax(Elements x) {
  return IsHosts(x) ? host_.AllReduceMax(x) : Reduce(x, /*maximum=*/true);
}

Handle DeviceCommunicator::Reduce(Elements x, bool maximum) {
  if (size() == 1) return Handle();
  const DeviceReduction sum = Reduction(x.dtype, x.dtype, maximum);
  const Collective collective = maximum ? Collective::kAllReduceMax : Collective::kAllReduce;
  return Start(
      CallOf(collective, x, x.count), sum.ScratchBytes(sum.Share(x.count)),
      [=](DeviceGroup& group, std::byte* scratch) { sum.All(group, x.data, x.count, scratch); });
}

Handle DeviceCommunicator::AllGather(Elements mine, Elements all) {
  if (IsHosts(all)) return host_.AllGather(mine, all);
  CHECK_EQ(all.count, size() * mine.count);
  CHECK(all.dtype == mine.dtype && !IsHosts(mine));
  if (size() == 1) return CopyAlone(mine, all);
  return Start(
      CallOf(Collective::kAllGather, mine, mine.count), 0,
      [=](DeviceGroup& group, std::byte*) { group.AllGather(mine.data, all.data, BytesOf(mine)); });
}

Handle DeviceCommunicator::ReduceScatter(Elements all, Elements mine) {
  if (IsHosts(all)) return host_.ReduceScatter(all, mine);
  CHECK_EQ(all.count, size() * mine.count);
  CHECK(!IsHosts(mine));
  if (size() == 1 && all.dtype == mine.dtype) return CopyAlone(all, mine);
  const DeviceReduction sum = Reduction(all.dtype, mine.dtype);
  return Start(CallOf(Collective::kReduceScatter, all, mine.count), sum.ScratchBytes(mine.count),
               [=](DeviceGroup& group, std::byte* scratch) {
                 sum.Scatter(group, all.data, mine.count, mine.data, scratch);
               });
}

Handle DeviceCommunicator::AllToAllV(const RowsByRank& send, const RowsByRank& receive,
                                     int64_t row_size) {
  if (IsHosts(send.rows)) return host_.AllToAllV(send, receive, row_size);
  CHECK(send.rows.dtype == receive.rows.dtype && !IsHosts(receive.rows));
  CHECK(std::ssize(send.counts) == size() && std::ssize(receive.counts) == size());
  std::vector<DeviceMessage> out = MessagesOf(send, row_size), in = MessagesOf(receive, row_size);
  const DeviceMessage from_here = std::exchange(out[rank()], {});
  const DeviceMessage to_here = std::exchange(in[rank()], {});
  CHECK_EQ(from_here.bytes, to_here.bytes);
  if (size() == 1) {
    if (from_here.bytes > 0) {
      shared_->accelerator->Copy(from_here.data, to_here.data, from_here.bytes);
    }
    return Handle();
  }
  return Start(CallOf(Collective::kAllToAllV, send.rows, row_size), 0,
               [=, out = std::move(out), in = std::move(in)](DeviceGroup& group, std::byte*) {
                 group.Exchange(out, in);
                 group.Copy(from_here.data, to_here.data, from_here.bytes);
               });
}

Handle DeviceCommunicator::Broadcast(Elements x, int root) {
  if (IsHosts(x)) return host_.Broadcast(x, root);
  if (size() == 1) return Handle();
  Call call = CallOf(Collective::kBroadcast, x, x.count);
  call.root = root;
  return Start(call, 0,
               [=](DeviceGroup& group, std::byte*) { group.Broadcast(x.data, BytesOf(x), root); });
}

Handle DeviceCommunicator::Send(Elements x, int to) {
  if (IsHosts(x)) return host_.Send(x, to);
  return StartOn(LinkTo(to), CallOf(Collective::kSend, x, x.count), to, 0,
                 [=](DeviceGroup& group, std::byte*) {
                   const DeviceMessage message = {1, x.data, BytesOf(x)};
                   group.Exchange(std::span(&message, 1), {});
                 });
}

Handle DeviceCommunicator::Receive(Elements x, int from) {
  if (IsHosts(x)) return host_.Receive(x, from);
  return StartOn(LinkFrom(from), CallOf(Collective::kReceive, x, x.count), from, 0,
                 [=](DeviceGroup& group, std::byte*) {
                   const DeviceMessage message = {0, x.data, BytesOf(x)};
                   group.Exchange({}, std::span(&message, 1));
                 });
}

std::unique_ptr<Communicator> DeviceCommunicator::Split(const std::vector<int>& ranks,
                                                        const std::string& name) {
  return std::unique_ptr<Communicator>(new DeviceCommunicator(host_.Split(ranks, name), shared_));
}

}  // namespace moebius
