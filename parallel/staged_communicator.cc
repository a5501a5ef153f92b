#include "parallel/staged_communicator.h"

#include <utility>

namespace moebius {
namespace {

// What stands for elements of the accelerator in memory of the host.
struct Staged {
  Elements there, here;
  std::shared_ptr<Storage> memory;
};

int64_t BytesOf(const Elements& x) { return x.count * SizeOf(x.dtype); }

// The host's operation, and what it received on the way back.
class StagedOperation final : public Operation {
 public:
  StagedOperation(Handle host, std::vector<Staged> received, std::vector<Staged> sent,
                  Accelerator& accelerator)
      : host_(std::move(host)),
        received_(std::move(received)),
        sent_(std::move(sent)),
        accelerator_(accelerator) {}

  bool Poll() override { return host_.Poll(); }
  void Wait() override {
    host_.Wait();
    for (const Staged& x : received_) {
      if (x.here.count == 0) continue;
      accelerator_.Copy(x.here.data, x.there.data, BytesOf(x.here));
      accelerator_.Hold(x.memory);
    }
  }

 private:
  Handle host_;
  const std::vector<Staged> received_, sent_;
  Accelerator& accelerator_;
};

}  // namespace

struct StagedCommunicator::Staging {
  explicit Staging(std::shared_ptr<Accelerator> owner)
      : accelerator(std::move(owner)), arena("staging", kCpu, 0, accelerator) {}

  bool Stages(const Elements& x) const {
    CHECK(x.accelerator == nullptr || x.accelerator == accelerator.get()) << "another device";
    return x.accelerator != nullptr;
  }

  Staged Stage(const Elements& x) {
    auto memory = arena.Allocate(BytesOf(x), "staging");
    const Elements here(static_cast<std::byte*>(memory->data()), x.count, x.dtype);
    return {x, here, std::move(memory)};
  }
  // Elements that the host has once Wait has returned.
  void Fetch(const Elements& there, const Elements& here) {
    if (there.count > 0) accelerator->Copy(there.data, here.data, BytesOf(there));
  }
  Staged StageFetched(const Elements& x) {
    Staged staged = Stage(x);
    Fetch(x, staged.here);
    accelerator->Wait();
    return staged;
  }

  Handle Start(Handle host, std::vector<Staged> received, std::vector<Staged> sent = {}) {
    return Handle(std::make_shared<StagedOperation>(std::move(host), std::move(received),
                                                    std::move(sent), *accelerator));
  }

  const std::shared_ptr<Accelerator> accelerator;
  Arena arena;
};

StagedCommunicator::StagedCommunicator(Communicator& host, std::shared_ptr<Accelerator> accelerator)
    : host_(host), staging_(std::make_shared<Staging>(std::move(accelerator))) {}

StagedCommunicator::StagedCommunicator(std::unique_ptr<Communicator> host,
                                       std::shared_ptr<Staging> staging)
    : owned_(std::move(host)), host_(*owned_), staging_(std::move(staging)) {}

StagedCommunicator::~StagedCommunicator() = default;

bool StagedCommunicator::Takes(const Accelerator& accelerator) const {
  return &accelerator == staging_->accelerator.get();
}

Handle StagedCommunicator::AllReduce(Elements x) {
  if (!staging_->Stages(x)) return host_.AllReduce(x);
  if (size() == 1) return Handle();
  Staged staged = staging_->StageFetched(x);
  Handle sum = host_.AllReduce(staged.here);
  return staging_->Start(std::move(sum), {std::move(staged)});
}

Handle StagedCommunicator::AllReduceMax(Elements x) {
  if (!staging_->Stages(x)) return host_.AllReduceMax(x);
  if (size() == 1) return Handle();
  Staged staged = staging_->StageFetched(x);
  Handle maximum = host_.AllReduceMax(staged.here);
  return staging_->Start(std::move(maximum), {std::move(staged)});
}

Handle StagedCommunicator::AllGather(Elements mine, Elements all) {
  if (!staging_->Stages(all)) return host_.AllGather(mine, all);
  Staged staged = staging_->Stage(all);
  const Elements own = staged.here.Slice(rank() * mine.count, (rank() + 1) * mine.count);
  staging_->Fetch(mine, own);
  staging_->accelerator->Wait();
  Handle gather = host_.AllGather(own, staged.here);
  return staging_->Start(std::move(gather), {std::move(staged)});
}

Handle StagedCommunicator::ReduceScatter(Elements all, Elements mine) {
  if (!staging_->Stages(all)) return host_.ReduceScatter(all, mine);
  Staged own = staging_->Stage(mine), parts = staging_->StageFetched(all);
  Handle sum = host_.ReduceScatter(parts.here, own.here);
  return staging_->Start(std::move(sum), {std::move(own)}, {std::move(parts)});
}

Handle StagedCommunicator::AllToAllV(const RowsByRank& send, const RowsByRank& receive,
                                     int64_t row_size) {
  if (!staging_->Stages(send.rows)) return host_.AllToAllV(send, receive, row_size);
  Staged received = staging_->Stage(receive.rows), sent = staging_->StageFetched(send.rows);
  Handle exchange =
      host_.AllToAllV({sent.here, send.counts}, {received.here, receive.counts}, row_size);
  return staging_->Start(std::move(exchange), {std::move(received)}, {std::move(sent)});
}

Handle StagedCommunicator::Broadcast(Elements x, int root) {
  if (!staging_->Stages(x)) return host_.Broadcast(x, root);
  Staged staged = staging_->StageFetched(x);
  Handle broadcast = host_.Broadcast(staged.here, root);
  return staging_->Start(std::move(broadcast), {std::move(staged)});
}

Handle StagedCommunicator::Barrier() { return host_.Barrier(); }

Handle StagedCommunicator::Send(Elements x, int to) {
  if (!staging_->Stages(x)) return host_.Send(x, to);
  Staged sent = staging_->StageFetched(x);
  Handle send = host_.Send(sent.here, to);
  return staging_->Start(std::move(send), {}, {std::move(sent)});
}

Handle StagedCommunicator::Receive(Elements x, int from) {
  if (!staging_->Stages(x)) return host_.Receive(x, from);
  Staged received = staging_->Stage(x);
  Handle receive = host_.Receive(received.here, from);
  return staging_->Start(std::move(receive), {std::move(received)});
}

std::unique_ptr<Communicator> StagedCommunicator::Split(const std::vector<int>& ranks,
                                                        const std::string& name) {
  return std::unique_ptr<Communicator>(new StagedCommunicator(host_.Split(ranks, name), staging_));
}

}  // namespace moebius
