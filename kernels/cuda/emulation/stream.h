// The work of a device that the CPU plays, and the memory that this work alone may touch.
//
// Nothing is done before the host waits or asks for it, or other work waits for it: as late as a
// device may. So a copy whose memory the host uses too early brings wrong numbers in a test, and an
// access of the host to the device's memory ends it. Work of several streams runs in any order
// that events between them allow: as late as they do, and where MOEBIUS_EMULATED_SIDE_STREAMS is
// "early", a side stream's copy as soon as it is given and nothing holds it back. A test that runs
// both ways finds the event that is missing. What is recorded has its arguments as they were then.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace moebius::cuda_emulation {

class Memory {
 public:
  // Memory that can be touched while work runs. Null: the system refuses. From any thread.
  void* Map(int64_t bytes);
  void Unmap(void* memory, int64_t bytes);
  bool Owns(const void* memory, int64_t bytes);

  // Lets this thread touch it, and no work of another thread run.
  class Access {
   public:
    explicit Access(Memory& memory);
    ~Access();

   private:
    Memory& memory_;
    const std::lock_guard<std::recursive_mutex> lock_;
  };

 private:
  void Protect(int access);

  std::recursive_mutex mutex_;
  int depth_ = 0;  // of accesses
  std::map<char*, int64_t> mappings_;
};

// Used by one thread at a time.
class Stream {
 public:
  // False: it waits for something, and is to be called again.
  using Step = std::function<bool()>;

  explicit Stream(Memory& memory) : memory_(memory) {}
  Memory& memory() { return memory_; }

  using Work = std::function<void()>;

  void Add(Work work) {
    if (recorded_) return recorded_->push_back(std::move(work));
    steps_.push_back([work = std::move(work)] {
      work();
      return true;
    });
  }
  void AddStep(Step step) { steps_.push_back(std::move(step)); }

  // Between the two, work is kept and not added.
  void BeginRecording() { recorded_.emplace(); }
  std::vector<Work> EndRecording() { return *std::exchange(recorded_, std::nullopt); }

  void RunWhileItCan(const std::function<bool()>& enough);  // in its order
  void Run();                                               // all of it, however long it waits
  void RunEarly();  // what waits for nothing that other streams have not done yet

 private:
  void RunSteps(const std::function<bool()>& enough);

  Memory& memory_;
  std::deque<Step> steps_;
  std::optional<std::vector<Work>> recorded_;
  bool running_ = false;  // further up in this thread
};

// A point in the work of a stream.
class Event {
 public:
  explicit Event(Stream& stream) : stream_(stream), done_(std::make_shared<bool>(false)) {
    stream.Add([done = done_] { *done = true; });
  }
  bool IsDone() const {
    if (!*done_) stream_.RunWhileItCan([this] { return *done_; });
    return *done_;
  }

 private:
  Stream& stream_;
  const std::shared_ptr<bool> done_;
};

}  // namespace moebius::cuda_emulation
