#include "kernels/cuda/nccl.h"

#include <chrono>
#include <cstring>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "kernels/cuda/combine.h"
#include "kernels/cuda/nccl_functions.h"

namespace moebius::cuda {
namespace {

// "NCCL: ncclSend: unhandled system error (the last error that it tells)"
std::string Sentence(const NcclFunctions& nccl, const char* call, int result, NcclComm comm) {
  std::string text = std::string("NCCL: ") + call + ": " + nccl.get_error_string(result);
  const char* last = nccl.get_last_error(comm);
  return last == nullptr || *last == 0 ? text : text + " (" + last + ")";
}

class NcclGroup final : public DeviceGroup {
 public:
  NcclGroup(const NcclFunctions& nccl, std::shared_ptr<Device> device, int rank, int size)
      : nccl_(nccl),
        device_(std::move(device)),
        stream_(device_->MakeSideStream()),
        rank_(rank),
        size_(size) {}
  ~NcclGroup() override {
    if (comm_ == nullptr) return;
    stream_->Finish();
    nccl_.comm_destroy(comm_);
    if (greetings_ != nullptr) device_->Unmap(greetings_, greetings_bytes());
  }

  void Join(const DeviceCollectives::Id& id);

  void Follow(const DeviceEvent& event) override { stream_->Follow(event); }
  void AllGather(const std::byte* mine, std::byte* all, int64_t bytes) override {
    if (bytes == 0 || failed()) return;
    Try("ncclAllGather", nccl_.all_gather(mine, all, static_cast<size_t>(bytes), kNcclUint8, comm_,
                                          stream_->stream()));
  }
  void Broadcast(std::byte* data, int64_t bytes, int root) override {
    if (bytes == 0 || failed()) return;
    Try("ncclBroadcast", nccl_.broadcast(data, data, static_cast<size_t>(bytes), kNcclUint8, root,
                                         comm_, stream_->stream()));
  }
  void Exchange(std::span<const DeviceMessage> send,
                std::span<const DeviceMessage> receive) override;
  void Copy(const std::byte* from, std::byte* to, int64_t bytes) override {
    if (bytes > 0 && !failed()) stream_->Copy(from, to, bytes);
  }
  void Combine(const CombineArgs& args) override {
    if (args.count > 0 && !failed()) CombineParts(args, stream_->stream());
  }
  std::unique_ptr<DeviceEvent> Mark() override { return stream_->Mark(); }

  std::string Failure() override {
    int error = kNcclSuccess;
    if (!failed() && comm_ != nullptr) Try("ncclCommGetAsyncError", Ask(&error));
    if (!failed() && error != kNcclInProgress) Try("an exchange under way", error);
    return failure_;
  }
  void Abort() override;

 private:
  bool failed() const { return !failure_.empty(); }
  int Ask(int* error) { return nccl_.comm_get_async_error(comm_, error); }
  void Try(const char* call, int result) {
    if (result != kNcclSuccess && !failed()) failure_ = Sentence(nccl_, call, result, comm_);
  }
  void Connect();
  int64_t greetings_bytes() const { return 2 * size_ * kGreetingBytes; }

  static constexpr int64_t kGreetingBytes = 16;

  const NcclFunctions& nccl_;
  const std::shared_ptr<Device> device_;
  const std::unique_ptr<SideStream> stream_;
  const int rank_, size_;
  NcclComm comm_ = nullptr;
  std::byte* greetings_ = nullptr;
  std::string failure_;
};

void NcclGroup::Join(const DeviceCollectives::Id& id) {
  NcclId nccl_id;
  static_assert(sizeof nccl_id == sizeof id);
  std::memcpy(&nccl_id, id.data(), sizeof nccl_id);
  Try("ncclCommInitRank", nccl_.comm_init_rank(&comm_, size_, nccl_id, rank_));
  if (!failed()) Connect();
}

// A message from each to each: the first one between two ranks makes their connection, and blocks
// the host meanwhile. Its memory is kept, as giving it back would wait for the whole device.
void NcclGroup::Connect() {
  greetings_ = static_cast<std::byte*>(device_->Map(greetings_bytes()));
  if (greetings_ == nullptr) {
    failure_ = "no memory on the device";
    return;
  }
  std::vector<DeviceMessage> send, receive;
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    send.push_back({r, greetings_ + r * kGreetingBytes, kGreetingBytes});
    receive.push_back({r, greetings_ + (size_ + r) * kGreetingBytes, kGreetingBytes});
  }
  Exchange(send, receive);
  if (!failed()) stream_->Finish();
}

void NcclGroup::Exchange(std::span<const DeviceMessage> send,
                         std::span<const DeviceMessage> receive) {
  if (failed()) return;
  Try("ncclGroupStart", nccl_.group_start());
  for (const auto& [rank, data, bytes] : send) {
    if (bytes == 0) continue;
    Try("ncclSend",
        nccl_.send(data, static_cast<size_t>(bytes), kNcclUint8, rank, comm_, stream_->stream()));
  }
  for (const auto& [rank, data, bytes] : receive) {
    if (bytes == 0) continue;
    Try("ncclRecv",
        nccl_.recv(data, static_cast<size_t>(bytes), kNcclUint8, rank, comm_, stream_->stream()));
  }
  Try("ncclGroupEnd", nccl_.group_end());
}

// NCCL may itself wait for a network that is gone: the process ends all the same.
void NcclGroup::Abort() {
  if (comm_ == nullptr) return;
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> aborted = done->get_future();
  std::thread([abort = nccl_.comm_abort, comm = std::exchange(comm_, nullptr), done] {
    abort(comm);
    done->set_value();
  }).detach();
  aborted.wait_for(std::chrono::seconds(2));
  failure_ = "given up";
}

class NcclCollectives final : public DeviceCollectives {
 public:
  NcclCollectives(std::shared_ptr<Device> device, const NcclFunctions& nccl)
      : device_(std::move(device)), nccl_(nccl) {}
  ~NcclCollectives() override { device_->SetBeforeWait(nullptr); }

  std::string Describe() const override {
    int version = 0;
    nccl_.get_version(&version);
    return "NCCL " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
           "." + std::to_string(version % 100);
  }
  uint64_t device_number() const override { return device_->number(); }

  bool NewId(Id* id, std::string* failure) override {
    NcclId nccl_id;
    const int result = nccl_.get_unique_id(&nccl_id);
    if (result != kNcclSuccess) *failure = Sentence(nccl_, "ncclGetUniqueId", result, nullptr);
    std::memcpy(id->data(), &nccl_id, id->size());
    return result == kNcclSuccess;
  }
  std::unique_ptr<DeviceGroup> Join(const Id& id, int rank, int size,
                                    std::string* failure) override {
    auto group = std::make_unique<NcclGroup>(nccl_, device_, rank, size);
    group->Join(id);
    *failure = group->Failure();
    if (failure->empty()) return group;
    group->Abort();
    return nullptr;
  }
  void SetBeforeWait(std::function<void()> call) override {
    device_->SetBeforeWait(std::move(call));
  }

 private:
  const std::shared_ptr<Device> device_;
  const NcclFunctions nccl_;
};

}  // namespace

std::shared_ptr<DeviceCollectives> OpenNcclCollectives(std::shared_ptr<Device> device,
                                                       const std::string& library,
                                                       std::string* reason) {
  NcclFunctions functions;
  if (!OpenNccl(library, &functions, reason)) return nullptr;
  return std::make_shared<NcclCollectives>(std::move(device), functions);
}

}  // namespace moebius::cuda
