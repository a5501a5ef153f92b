#include "parallel/message_operation.h"

#include <algorithm>

namespace moebius {
namespace {

// Up to here malloc is cheaper than accounting, and keeps what it has.
constexpr int64_t kSmallScratch = 32 << 10;

}  // namespace

void MessageOperation::Send(int to, const Message& message) {
  if (message.elements.count == 0) return;
  Add(to, message, group_.transport->Send(to, Tag(message.round), message.elements.bytes()));
}

void MessageOperation::Receive(int from, const Message& message) {
  if (message.elements.count == 0) return;
  Add(from, message, group_.transport->Receive(from, Tag(message.round), message.elements.bytes()));
}

void MessageOperation::Add(int peer, const Message& message, std::unique_ptr<Transfer> transfer) {
  if (transfer == nullptr) return;
  const int before = message.before == kNext ? next_stage_ : message.before;
  underway_.push_back({peer, before, std::move(transfer)});
}

std::byte* MessageOperation::MakeScratch(int64_t bytes) {
  if (bytes <= kSmallScratch) {
    small_scratch_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(bytes));
    return scratch_ = small_scratch_.get();
  }
  large_scratch_ = group_.progress->arena().Allocate(bytes, "messages");
  return scratch_ = static_cast<std::byte*>(large_scratch_->data());
}

bool MessageOperation::Poll() {
  group_.progress->Poll();
  return group_.progress->IsDone(*this);
}

std::string MessageOperation::Title() const {
  return absl::StrCat("group ", group_.name, ", ", call_.ToString());
}

absl::StatusOr<bool> MessageOperation::Advance() {
  while (true) {
    if (absl::Status status = PollMessages(); !status.ok()) return status;
    const bool waits = std::ranges::any_of(
        underway_, [&](const Underway& message) { return message.before <= next_stage_; });
    if (waits) return false;
    if (next_stage_ == num_stages_) break;
    const int stage = next_stage_++;
    run_stage_(*this, stage);
  }
  small_scratch_.reset();  // though a Handle may keep the operation
  large_scratch_.reset();
  return true;
}

absl::Status MessageOperation::PollMessages() {
  absl::Status status;
  std::erase_if(underway_, [&](const Underway& message) {
    const absl::StatusOr<bool> done = message.transfer->Poll();
    if (!done.ok()) status = Describe(message.peer, done.status());
    return done.ok() && *done;
  });
  return status;
}

std::optional<std::string> MessageOperation::Mismatch(const Board& board) const {
  if (call_.is_message()) return std::nullopt;
  for (const int member : group_.members) {
    const auto theirs = board.At(member, group_.number, call_.sequence);
    if (!theirs || theirs->SameAs(call_)) continue;
    return absl::StrCat("group ", group_.name, ": rank ", group_.progress->world_rank(), " calls ",
                        call_.ToString(), " where rank ", member, " calls ", theirs->ToString(),
                        ": all ranks of a group must call the same operations in one order");
  }
  return std::nullopt;
}

std::vector<int> MessageOperation::Missing(const Board& board) const {
  std::vector<int> missing;
  for (const int member : group_.members) {
    if (call_.is_message()) break;
    if (board.Latest(member, group_.number) < call_.sequence) missing.push_back(member);
  }
  if (!missing.empty()) return missing;
  for (const auto& message : underway_) {
    for (int r = 0; r < group_.size(); ++r) {
      if (r == message.peer || (message.peer == kEveryone && r != group_.rank)) {
        missing.push_back(group_.members[r]);
      }
    }
  }
  std::ranges::sort(missing);
  missing.erase(std::ranges::unique(missing).begin(), missing.end());
  return missing;
}

// Messages of different collectives never meet; a send and its receive do. 15 bits: what MPI
// promises.
int MessageOperation::Tag(int round) const {
  const Collective kind = std::min(call_.collective, Collective::kSend);
  return round | static_cast<int>(kind) << 1 | static_cast<int>(call_.dtype) << 4 |
         static_cast<int>(call_.sequence % 256) << 7;
}

absl::Status MessageOperation::Describe(int peer, const absl::Status& error) const {
  if (peer == kEveryone) {
    return absl::InternalError(
        absl::StrCat(Title(), ": rank ", group_.progress->world_rank(), ": ", error.message()));
  }
  return absl::InternalError(absl::StrCat(Title(), ": rank ", group_.progress->world_rank(),
                                          " and rank ", group_.members[peer], ": ",
                                          error.message()));
}

}  // namespace moebius
