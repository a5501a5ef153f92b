// A collective or a message under way within one group: stages that start messages, each run when
// the messages that it needs are done.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/message_transport.h"
#include "parallel/progress.h"

namespace moebius {

// What the operations of a group share.
struct MessageGroup {
  std::string name;
  int number;                // no other group of any of its members has it
  std::vector<int> members;  // ranks of the world
  int rank;                  // in the group
  std::unique_ptr<Transport> transport;
  Progress* progress;

  int size() const { return static_cast<int>(members.size()); }
};

class MessageOperation final : public Operation, public Pending {
 public:
  // Called with 0, 1 ... num_stages - 1.
  using Stage = std::function<void(MessageOperation& operation, int stage)>;

  MessageOperation(const MessageGroup& group, const Call& call, int num_stages, Stage run_stage)
      : group_(group), call_(call), num_stages_(num_stages), run_stage_(std::move(run_stage)) {}

  // --- for stages ---

  // Messages between two ranks come in order within a round, 0 or 1.
  struct Message {
    Elements elements;
    int round = 0;
    int before = kNext;  // the first stage that waits until it is done
  };
  static constexpr int kNext = 0;
  void Send(int to, const Message& message);  // unless it is empty
  void Receive(int from, const Message& message);

  // What others carry out, with `peer` or, if that is kEveryone, with all.
  static constexpr int kEveryone = -1;
  void Carry(int peer, std::unique_ptr<Transfer> transfer) { Add(peer, {}, std::move(transfer)); }

  const MessageGroup& ranks() const { return group_; }
  int num_stages() const { return num_stages_; }

  // Memory that lives as long as the operation is under way.
  std::byte* MakeScratch(int64_t bytes);
  std::byte* scratch() const { return scratch_; }

  // --- Operation ---
  bool Poll() override;
  void Wait() override { group_.progress->Wait(*this); }

  // --- Pending ---
  const Call& call() const override { return call_; }
  const std::string& group() const override { return group_.name; }
  std::string Title() const override;
  absl::StatusOr<bool> Advance() override;
  std::optional<std::string> Mismatch(const Board& board) const override;
  std::vector<int> Missing(const Board& board) const override;
  void Abandon() override {
    for (const Underway& message : underway_) message.transfer->Abandon();
  }

 private:
  struct Underway {
    int peer;
    int before;
    std::unique_ptr<Transfer> transfer;
  };

  void Add(int peer, const Message& message, std::unique_ptr<Transfer> transfer);
  absl::Status PollMessages();  // and forgets those that are done
  int Tag(int round) const;
  absl::Status Describe(int peer, const absl::Status& error) const;

  const MessageGroup& group_;
  const Call call_;
  const int num_stages_;
  const Stage run_stage_;
  int next_stage_ = 0;
  std::vector<Underway> underway_;
  std::byte* scratch_ = nullptr;
  std::unique_ptr<std::byte[]> small_scratch_;
  std::shared_ptr<Storage> large_scratch_;
};

}  // namespace moebius
