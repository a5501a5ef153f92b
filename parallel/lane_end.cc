#include "parallel/lane_end.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace moebius {
namespace {

using Entry = MessageLane::Entry;
using Kind = MessageLane::Kind;
using Answer = MessageLane::Answer;

// Measured: docs/performance.md, "Two ranks".
constexpr int64_t kMaxShort = 16 << 10;    // at once
constexpr int64_t kMaxInParts = 64 << 10;  // though the receiver might read the sender's memory
constexpr int64_t kPart = 32 << 10, kMinPart = 4 << 10;

}  // namespace

LaneEnd::LaneEnd(const HostMemory* memory, int rank, bool reads)
    : memory_(memory),
      rank_(rank),
      reads_(reads && memory->CanRead(rank)),
      max_short_(std::min(kMaxShort, memory->lane_capacity() / 4)),
      out_(memory->LaneTo(rank)),
      in_(memory->LaneFrom(rank)) {}

bool LaneEnd::SendAtOnce(Outgoing message) {
  return queue_.empty() && std::ssize(message.rest) <= max_short_ && Show(message);
}

void LaneEnd::Enqueue(Outgoing& message) {
  queue_.push_back(&message);
  ShowQueued();
}

bool LaneEnd::Continue(Outgoing& message) {
  ShowQueued();
  if (message.slot >= 0) FollowAnswer(message);
  return message.is_shown && message.slot < 0;
}

void LaneEnd::Forget(const Outgoing& message) { std::erase(queue_, &message); }

void LaneEnd::Expect(Incoming& message) {
  const auto early =
      std::ranges::find_if(early_, [&](const Early& e) { return message.key.Fits(e.entry); });
  if (early == early_.end()) {
    expected_.push_back(&message);
    return;
  }
  if (Match(message, early->entry)) {
    std::ranges::copy(early->payload, std::exchange(message.rest, {}).begin());
  }
  early_.erase(early);
}

absl::StatusOr<bool> LaneEnd::Continue(Incoming& message) {
  while (!message.rest.empty() && message.address == 0 && message.status.ok()) {
    const Entry* entry = in_.Front();
    if (entry == nullptr) return false;
    Take(*entry);
    in_.Pop();
  }
  if (!message.status.ok()) return message.status;
  if (!message.rest.empty()) RETURN_IF_ERROR(ReadRest(message));
  return message.rest.empty();
}

void LaneEnd::Forget(const Incoming& message) {
  std::erase(expected_, &message);
  if (message.slot >= 0) coming_[message.slot] = nullptr;
}

void LaneEnd::ShowQueued() {
  while (!queue_.empty() && Show(*queue_.front())) queue_.pop_front();
}

bool LaneEnd::Show(Outgoing& message) {
  const int64_t bytes = std::ssize(message.rest);
  Entry entry = {.group = message.key.group, .tag = message.key.tag, .message_bytes = bytes};
  if (bytes <= max_short_) {
    if (out_.Room(bytes) < bytes) return false;
    entry.payload_bytes = bytes;
    out_.Write(entry, std::exchange(message.rest, {}));
  } else {
    if (free_slots_ == 0 || out_.Room(0) < 0) return false;
    entry.kind = Kind::kAnnouncement;
    entry.slot = message.slot = std::countr_zero(free_slots_);
    entry.address = reinterpret_cast<uint64_t>(message.rest.data());
    free_slots_ &= free_slots_ - 1;
    out_.Write(entry, {});
  }
  message.is_shown = true;
  return true;
}

void LaneEnd::FollowAnswer(Outgoing& message) {
  const Answer answer = out_.AnswerTo(message.slot);
  if (answer == Answer::kNone) return;
  if (answer == Answer::kTaken) message.rest = {};
  WriteParts(message);
  if (!message.rest.empty()) return;
  out_.ForgetAnswer(message.slot);
  free_slots_ |= uint64_t{1} << message.slot;
  message.slot = -1;
}

void LaneEnd::WriteParts(Outgoing& message) {
  while (!message.rest.empty()) {
    const int64_t wanted = std::min(std::ssize(message.rest), kPart);
    const int64_t room = out_.Room(wanted);
    if (room < std::min(wanted, kMinPart)) return;
    const int64_t n = std::min(wanted, room);
    out_.Write({.kind = Kind::kPart, .slot = message.slot, .payload_bytes = n},
               message.rest.first(n));
    message.rest = message.rest.subspan(n);
  }
}

void LaneEnd::Take(const Entry& entry) {
  if (entry.kind == Kind::kPart) return TakePart(entry);
  const auto expected =
      std::ranges::find_if(expected_, [&](Incoming* m) { return m->key.Fits(entry); });
  if (expected == expected_.end()) {
    early_.push_back({entry, std::vector<std::byte>(entry.payload_bytes)});
    in_.Read(early_.back().payload);
    return;
  }
  Incoming& message = **expected;
  expected_.erase(expected);
  if (Match(message, entry)) in_.Read(std::exchange(message.rest, {}));
}

// Whether the payload of the entry belongs to the message.
bool LaneEnd::Match(Incoming& message, const Entry& entry) {
  if (entry.message_bytes != std::ssize(message.rest)) {
    message.status = absl::InternalError(absl::StrCat(
        entry.message_bytes, " bytes were sent where ", message.rest.size(), " are expected"));
    return false;
  }
  if (entry.kind == Kind::kWhole) return true;
  message.slot = entry.slot;
  if (reads_ && entry.message_bytes > kMaxInParts) {
    message.address = entry.address;
  } else {
    coming_[entry.slot] = &message;
    in_.SetAnswer(entry.slot, Answer::kWanted);
  }
  return false;
}

void LaneEnd::TakePart(const Entry& entry) {
  Incoming* const message = coming_[entry.slot];
  if (message == nullptr) return;  // forgotten
  in_.Read(message->rest.first(entry.payload_bytes));
  message->rest = message->rest.subspan(entry.payload_bytes);
  if (message->rest.empty()) coming_[std::exchange(message->slot, -1)] = nullptr;
}

// Of a message that the sender keeps until it is told. One that has ended keeps nothing: then the
// message never comes.
absl::Status LaneEnd::ReadRest(Incoming& message) {
  while (!message.rest.empty()) {
    ASSIGN_OR_RETURN(const int64_t count, memory_->Read(rank_, message.address, message.rest));
    if (count == 0) return absl::OkStatus();
    message.address += count;
    message.rest = message.rest.subspan(count);
  }
  in_.SetAnswer(std::exchange(message.slot, -1), Answer::kTaken);
  return absl::OkStatus();
}

}  // namespace moebius
