// One process's ends of the two lanes between it and another: what is announced, taken in parts, or
// came before its receive. Used by the rank's thread alone.
#pragma once

#include <array>
#include <deque>
#include <span>
#include <vector>

#include "core/base/status.h"
#include "parallel/host_memory.h"
#include "parallel/message_lane.h"

namespace moebius {

// What a message and its receive have in common.
struct MessageKey {
  int group;
  int tag;
  bool Fits(const MessageLane::Entry& entry) const {
    return entry.group == group && entry.tag == tag;
  }
};

// A message that this process sends. It is done when all is written, or the receiver has it.
struct Outgoing {
  MessageKey key;
  std::span<const std::byte> rest;  // not written yet
  int slot = -1;                    // of an announced message that is not done
  bool is_shown = false;            // written or announced
};

// A message that this process expects.
struct Incoming {
  MessageKey key;
  std::span<std::byte> rest;  // not there yet
  int slot = -1;              // of an announced message that is not done
  uint64_t address = 0;       // of `rest` in the sender's memory, if this process reads it; else 0
  absl::Status status = {};   // whether the message that came fits
};

class LaneEnd {
 public:
  // `reads`: whether to read the other's memory, where the system allows it.
  LaneEnd(const HostMemory* memory, int rank, bool reads);

  // True if the message is written: it is short, and nothing stands before it.
  bool SendAtOnce(Outgoing message);

  // Messages of one key meet in the order of these calls. A message stays where it is until it is
  // done or forgotten.
  void Enqueue(Outgoing& message);
  void Expect(Incoming& message);

  // Goes on as far as it can without waiting. True once the message is done; an error if the one
  // that came has another length.
  bool Continue(Outgoing& message);
  absl::StatusOr<bool> Continue(Incoming& message);

  void Forget(const Outgoing& message);
  void Forget(const Incoming& message);

 private:
  // A message, or the announcement of one, that came before its receive.
  struct Early {
    MessageLane::Entry entry;
    std::vector<std::byte> payload;
  };

  void ShowQueued();
  bool Show(Outgoing& message);
  void FollowAnswer(Outgoing& message);
  void WriteParts(Outgoing& message);

  void Take(const MessageLane::Entry& entry);
  void TakePart(const MessageLane::Entry& entry);
  bool Match(Incoming& message, const MessageLane::Entry& entry);
  absl::Status ReadRest(Incoming& message);

  const HostMemory* const memory_;
  const int rank_;    // the other's
  const bool reads_;  // its memory
  const int64_t max_short_;
  MessageLane out_, in_;

  std::deque<Outgoing*> queue_;  // not shown yet, the first one first
  uint64_t free_slots_ = ~uint64_t{0};
  static_assert(MessageLane::kSlots == 64, "a bit each");

  std::vector<Incoming*> expected_;  // not matched yet, in the order of their receives
  std::deque<Early> early_;
  std::array<Incoming*, MessageLane::kSlots> coming_ = {};  // in parts
};

}  // namespace moebius
