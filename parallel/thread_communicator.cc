#include "parallel/thread_communicator.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>

#include "parallel/message_communicator.h"
#include "parallel/message_transport.h"

namespace moebius {
namespace {

// A message waits in its receiver's mailbox until the receiver has copied it.
struct Message {
  int group;
  int source;  // in the group
  int tag;
  std::span<const std::byte> bytes;
  std::shared_ptr<std::atomic<bool>> taken;
};

class Mailbox {
 public:
  void Post(Message message) {
    const std::lock_guard lock(mutex_);
    messages_.push_back(std::move(message));
  }

  // The oldest message of this kind, if one has come.
  std::optional<Message> Take(int group, int source, int tag) {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(messages_, [&](const Message& m) {
      return m.group == group && m.source == source && m.tag == tag;
    });
    if (found == messages_.end()) return std::nullopt;
    Message message = std::move(*found);
    messages_.erase(found);
    return message;
  }

 private:
  std::mutex mutex_;
  std::vector<Message> messages_;
};

class SendTransfer final : public Transfer {
 public:
  explicit SendTransfer(std::shared_ptr<std::atomic<bool>> taken) : taken_(std::move(taken)) {}
  absl::StatusOr<bool> Poll() override { return taken_->load(std::memory_order_acquire); }

 private:
  const std::shared_ptr<std::atomic<bool>> taken_;
};

class ReceiveTransfer final : public Transfer {
 public:
  // What a rank expects in a group and has not got, in the order of the receives.
  using Expected = std::vector<const ReceiveTransfer*>;

  ReceiveTransfer(Mailbox* mailbox, std::shared_ptr<Expected> expected, int group, int source,
                  int tag, std::span<std::byte> bytes)
      : mailbox_(mailbox),
        expected_(std::move(expected)),
        group_(group),
        source_(source),
        tag_(tag),
        bytes_(bytes) {
    expected_->push_back(this);
  }
  ~ReceiveTransfer() override { std::erase(*expected_, this); }

  absl::StatusOr<bool> Poll() override {
    if (!IsNext()) return false;
    const auto message = mailbox_->Take(group_, source_, tag_);
    if (!message) return false;
    std::erase(*expected_, this);
    if (message->bytes.size() != bytes_.size()) {
      return absl::InternalError(absl::StrCat(message->bytes.size(), " bytes were sent where ",
                                              bytes_.size(), " are expected"));
    }
    std::memcpy(bytes_.data(), message->bytes.data(), bytes_.size());
    message->taken->store(true, std::memory_order_release);
    return true;
  }

 private:
  bool IsNext() const {
    return *std::ranges::find_if(*expected_, [&](const ReceiveTransfer* other) {
      return other->source_ == source_ && other->tag_ == tag_;
    }) == this;
  }

  Mailbox* const mailbox_;
  const std::shared_ptr<Expected> expected_;
  const int group_, source_, tag_;
  const std::span<std::byte> bytes_;
};

class ThreadTransport final : public Transport {
 public:
  // mailboxes[r] belongs to rank r of the group.
  ThreadTransport(int group, int rank, std::vector<Mailbox*> mailboxes)
      : group_(group), rank_(rank), mailboxes_(std::move(mailboxes)) {}

  std::unique_ptr<Transfer> Send(int to, int tag, std::span<const std::byte> bytes) override {
    auto taken = std::make_shared<std::atomic<bool>>(false);
    mailboxes_[to]->Post({group_, rank_, tag, bytes, taken});
    return std::make_unique<SendTransfer>(std::move(taken));
  }

  std::unique_ptr<Transfer> Receive(int from, int tag, std::span<std::byte> bytes) override {
    return std::make_unique<ReceiveTransfer>(mailboxes_[rank_], expected_, group_, from, tag,
                                             bytes);
  }

  std::unique_ptr<Transport> Split(int group, const std::vector<int>& members) override {
    std::vector<Mailbox*> mailboxes;
    for (const int member : members) mailboxes.push_back(mailboxes_[member]);
    const auto self = std::ranges::find(members, rank_) - members.begin();
    return std::make_unique<ThreadTransport>(group, static_cast<int>(self), std::move(mailboxes));
  }

 private:
  const int group_;
  const int rank_;
  const std::vector<Mailbox*> mailboxes_;
  const std::shared_ptr<ReceiveTransfer::Expected> expected_ =
      std::make_shared<ReceiveTransfer::Expected>();
};

}  // namespace

void RunOnThreads(int size, const WaitOptions& options,
                  const std::function<void(Communicator& world)>& body) {
  CHECK_GE(size, 1);
  std::vector<Mailbox> boxes(size);
  std::vector<Mailbox*> mailboxes;
  for (Mailbox& box : boxes) mailboxes.push_back(&box);
  std::vector<int> members(size);
  std::iota(members.begin(), members.end(), 0);
  const std::shared_ptr<Board> board = Board::InMemory(size);

  const auto run = [&](int rank) {
    Progress progress(rank, board, options);
    progress.set_next_group(1);
    MessageCommunicator world("world", 0, members,
                              std::make_unique<ThreadTransport>(0, rank, mailboxes), &progress);
    body(world);
  };
  std::vector<std::thread> threads;
  for (int rank = 1; rank < size; ++rank) threads.emplace_back(run, rank);
  run(0);
  for (std::thread& thread : threads) thread.join();
}

void RunOnThreads(int size, const std::function<void(Communicator& world)>& body) {
  RunOnThreads(size, WaitOptions{}, body);
}

}  // namespace moebius
