// The memory of a board: what one rank shows, in a file that others map while it is written. All
// zero when nothing has been published.
#pragma once

#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <string>

#include "parallel/board.h"

namespace moebius {

// A call in shared memory. `order` is 0 while the rest is being written, and is read first and
// last: acquire and release make a reader that saw anything new see the 0, too.
class CallSlot {
 public:
  void Store(int group, const Call& call, int64_t now_ns) {
    order_.store(0, kRelease);
    sequence_.store(call.sequence, kRelease);
    count_.store(call.count, kRelease);
    bytes_.store(call.bytes, kRelease);
    what_.store(static_cast<int64_t>(call.collective) | static_cast<int64_t>(call.dtype) << 8 |
                    static_cast<int64_t>(group) << 16 | static_cast<int64_t>(call.root) << 32,
                kRelease);
    started_ns_.store(now_ns, kRelease);
    done_ns_.store(kIsStarted, kRelease);
    order_.store(call.order, kRelease);
  }
  void SetWaiting() { done_ns_.store(kIsWaiting, kRelease); }
  void SetDone(int64_t now_ns) { done_ns_.store(now_ns, kRelease); }

  int64_t order() const { return order_.load(kAcquire); }

  // Nothing if it is empty or being written. The group's name is left out.
  struct Content {
    ShownCall shown;
    int group = 0;
  };
  std::optional<Content> Load() const {
    Content content;
    Call& call = content.shown.call;
    call.order = order();
    call.sequence = sequence_.load(kAcquire);
    call.count = count_.load(kAcquire);
    call.bytes = bytes_.load(kAcquire);
    const int64_t what = what_.load(kAcquire);
    call.collective = static_cast<Collective>(what & 0xFF);
    call.dtype = static_cast<DType>(what >> 8 & 0xFF);
    call.root = static_cast<int>(what >> 32);
    content.group = static_cast<int>(what >> 16 & 0xFFFF);
    content.shown.started_ns = started_ns_.load(kAcquire);
    const int64_t done_ns = done_ns_.load(kAcquire);
    content.shown.state = done_ns == kIsStarted   ? CallState::kStarted
                          : done_ns == kIsWaiting ? CallState::kWaiting
                                                  : CallState::kDone;
    if (content.shown.state == CallState::kDone) content.shown.done_ns = done_ns;
    if (call.order == 0 || order() != call.order) return std::nullopt;
    return content;
  }

 private:
  static constexpr auto kRelease = std::memory_order_release;
  static constexpr auto kAcquire = std::memory_order_acquire;
  static constexpr int64_t kIsStarted = 0, kIsWaiting = -1;  // in done_ns_

  std::atomic<int64_t> order_, sequence_, count_, bytes_, what_, started_ns_, done_ns_;
};
static_assert(std::atomic<int64_t>::is_always_lock_free, "shared between processes");

struct Board::Page {
  struct Group {
    std::atomic<int64_t> named;  // the name is written once, before this leaves 0
    char name[32];
    std::atomic<int64_t> latest;  // collective

    void SetName(const std::string& text) {
      if (named != 0) return;
      std::strncpy(name, text.c_str(), sizeof(name) - 1);
      named = 1;
    }
    std::string Name() const { return named != 0 ? name : "?"; }
  };

  std::atomic<uint64_t> run;
  std::atomic<int64_t> waits_for;  // rank + 1
  std::atomic<int64_t> failed;
  std::atomic<int64_t> reported;
  std::array<Group, kMaxGroups> groups;
  std::array<CallSlot, kHistory> calls;  // at order % kHistory

  CallSlot* Find(int64_t order) {
    CallSlot& slot = calls[order % kHistory];
    return slot.order() == order ? &slot : nullptr;
  }
};

}  // namespace moebius
