// One direction between two processes: a ring of entries in memory that both map, all zero at
// first. One thread writes and one reads; neither locks, waits or calls the system.
//
// An entry is a header and a payload, and starts on a cache line. The writer shows it by moving
// `tail`, the reader gives its place back by moving `head`: positions count bytes from the start
// and never wrap. Beside the ring the reader answers announcements.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace moebius {

class MessageLane {
 public:
  static constexpr int kSlots = 64;  // messages that are announced and not yet done

  enum class Kind : int32_t {
    kWhole,         // a message with its payload
    kAnnouncement,  // of a message that stays in the writer's memory
    kPart,          // the next bytes of the message in this slot
  };
  enum class Answer : uint8_t {
    kNone,
    kWanted,  // send it in parts
    kTaken,   // the reader has copied it
  };
  struct alignas(16) Entry {
    Kind kind = Kind::kWhole;
    int32_t slot = 0;
    int32_t group = 0;
    int32_t tag = 0;
    int64_t message_bytes = 0;
    int64_t payload_bytes = 0;
    uint64_t address = 0;  // of an announced message
  };

  // `capacity`: bytes of the ring, a power of two, at least 4096.
  static int64_t MemoryBytes(int64_t capacity) {
    return static_cast<int64_t>(sizeof(Shared)) + capacity;
  }
  MessageLane() = default;
  MessageLane(std::byte* memory, int64_t capacity)
      : shared_(reinterpret_cast<Shared*>(memory)),
        ring_(memory + sizeof(Shared)),
        capacity_(static_cast<uint64_t>(capacity)) {}

  // --- the writer ---

  // The longest payload that fits now; below 0: no entry fits. Looks at the reader's position only
  // if less than `wanted` is known to fit.
  int64_t Room(int64_t wanted) {
    const auto room = [&] {
      return static_cast<int64_t>(capacity_ - (tail_ - head_)) -
             static_cast<int64_t>(sizeof(Entry));
    };
    if (room() < wanted) head_ = shared_->head.load(std::memory_order_acquire);
    return room();
  }

  // REQUIRES: Room(entry.payload_bytes) >= entry.payload_bytes == payload.size().
  void Write(const Entry& entry, std::span<const std::byte> payload) {
    std::memcpy(ring_ + Offset(tail_), &entry, sizeof(Entry));
    const auto [first, rest] = Cut(tail_, payload.size());
    if (first > 0) std::memcpy(ring_ + Offset(tail_ + sizeof(Entry)), payload.data(), first);
    if (rest > 0) std::memcpy(ring_, payload.data() + first, rest);
    tail_ += Length(payload.size());
    shared_->tail.store(tail_, std::memory_order_release);
  }

  Answer AnswerTo(int slot) const { return shared_->answers[slot].load(std::memory_order_acquire); }
  // Before the slot is used again.
  void ForgetAnswer(int slot) {
    shared_->answers[slot].store(Answer::kNone, std::memory_order_relaxed);
  }

  // --- the reader ---

  // The oldest entry; null if there is none. Valid until Pop.
  const Entry* Front() {
    if (head_ == tail_) tail_ = shared_->tail.load(std::memory_order_acquire);
    return head_ == tail_ ? nullptr : reinterpret_cast<const Entry*>(ring_ + Offset(head_));
  }

  // Its payload. REQUIRES: to.size() == Front()->payload_bytes.
  void Read(std::span<std::byte> to) const {
    const auto [first, rest] = Cut(head_, to.size());
    if (first > 0) std::memcpy(to.data(), ring_ + Offset(head_ + sizeof(Entry)), first);
    if (rest > 0) std::memcpy(to.data() + first, ring_, rest);
  }

  void Pop() {
    head_ += Length(static_cast<size_t>(Front()->payload_bytes));
    shared_->head.store(head_, std::memory_order_release);
  }

  void SetAnswer(int slot, Answer answer) {
    shared_->answers[slot].store(answer, std::memory_order_release);
  }

 private:
  static constexpr size_t kLine = 64;

  struct Shared {
    alignas(kLine) std::atomic<uint64_t> tail;
    alignas(kLine) std::atomic<uint64_t> head;
    alignas(kLine) std::atomic<Answer> answers[kSlots];
  };
  static_assert(std::atomic<uint64_t>::is_always_lock_free &&
                    std::atomic<Answer>::is_always_lock_free,
                "shared between processes");
  static_assert(sizeof(Entry) <= kLine, "a header never wraps");

  struct Pieces {
    size_t first, rest;  // up to the end of the ring, and from its start
  };
  Pieces Cut(uint64_t position, size_t payload) const {
    const size_t until_end = capacity_ - Offset(position) - sizeof(Entry);
    return payload <= until_end ? Pieces{payload, 0} : Pieces{until_end, payload - until_end};
  }
  size_t Offset(uint64_t position) const { return position & (capacity_ - 1); }
  static uint64_t Length(size_t payload) {
    return (sizeof(Entry) + payload + kLine - 1) / kLine * kLine;
  }

  Shared* shared_ = nullptr;
  std::byte* ring_ = nullptr;
  uint64_t capacity_ = 0;
  uint64_t head_ = 0, tail_ = 0;  // as far as this side knows
};

}  // namespace moebius
