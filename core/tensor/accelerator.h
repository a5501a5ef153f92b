// A device other than the CPU: its memory, and the work that it has been given. A plugin implements
// it, so that one program serves machines with and without one.
//
// Work runs in the order in which it was given, behind the caller's back; copies are work, too. The
// host never touches the device's memory: what it wants to read is copied to it
// (core/tensor/copy.h), and it waits. Waits are counted, so that a step that should wait once can
// be held to it.
//
// Work may also go on in streams beside its own: copies to and from the host, and what other ranks
// take part in. Events order one behind the other, and the host waits for none of them.
//
// Belongs to the thread of its rank; memory alone may be given back by any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/tensor/dtype.h"

namespace moebius {

namespace kernels {
struct Backend;
}

// A point in the work of an accelerator or of a stream beside it. Of the thread of its rank.
class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;  // what follows it still does
  virtual bool IsDone() = 0;         // what stands before it
  // Work that the accelerator is given from now on begins when the event is done.
  virtual void HoldBackAccelerator() = 0;
};

// Work of an accelerator beside its own: streams go on independently but for the events between
// them.
class SideStream {
 public:
  virtual ~SideStream() = default;  // waits for nothing

  virtual void* stream() = 0;
  virtual void Follow(const DeviceEvent& event) = 0;  // what is added next begins when it is done
  // As Accelerator::Copy.
  virtual void Copy(const void* from, void* to, int64_t bytes) = 0;
  virtual std::unique_ptr<DeviceEvent> Mark() = 0;  // behind all of this
  virtual void Finish() = 0;  // returns when its work is done; any thread, which then alone uses it
};

// Work that an accelerator has recorded and can be given again and again: the same kernels with the
// same arguments, the same copies between the same addresses. What stands at these addresses may
// be other numbers each time.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;  // REQUIRES: it is done (Accelerator::Wait)

 private:
  friend class Accelerator;
  std::vector<std::shared_ptr<const void>> held_;
};

class Accelerator {
 public:
  virtual ~Accelerator() = default;

  virtual std::string Describe() const = 0;  // "NVIDIA H200, 139 GiB"

  // Operations per second that its data sheet gives for dense products; 0: not known.
  virtual double PeakFlops(DType dtype) const = 0;

  // Memory of its own, and memory of the host that it can copy from and to while the host goes on
  // ("pinned"). Null: there is not as much.
  virtual void* Map(int64_t bytes) = 0;
  virtual void Unmap(void* memory, int64_t bytes) = 0;
  virtual void* MapHost(int64_t bytes) = 0;
  virtual void UnmapHost(void* memory, int64_t bytes) = 0;

  // Its own memory, to zero bytes.
  virtual void Clear(void* memory, int64_t bytes) = 0;
  // Between its own memory and the host's, either way, or within its own. Before Wait returns the
  // host neither writes what is copied from, nor reads what is copied to.
  virtual void Copy(const void* from, void* to, int64_t bytes) = 0;

  // Behind the work that it has been given until now.
  virtual std::unique_ptr<DeviceEvent> Mark() = 0;
  // Any thread, which uses the device then.
  virtual std::unique_ptr<SideStream> MakeSideStream() = 0;

  // In which its work is queued; what that is is known to its kernels alone.
  virtual void* stream() const = 0;
  // What computes on it (kernels/backend.h).
  virtual const kernels::Backend& kernels() const = 0;

  // Work has been given to it: a kernel, a copy, or all that was recorded.
  void MarkBusy() {
    if (recording_) return;
    busy_ = true;
    ++num_given_;
  }
  int64_t num_given() const { return num_given_; }

  // `memory` of the host lives until the work that it has been given is done.
  void Hold(std::shared_ptr<const void> memory) {
    (recording_ ? held_by_recording_ : held_).push_back(std::move(memory));
  }

  // Returns when all its work is done.
  void Wait() {
    CheckNotRecording("a wait");
    if (!busy_) return;
    WaitForWork();
    busy_ = false;
    ++num_waits_;
    held_.clear();
  }
  int64_t num_waits() const { return num_waits_; }  // for work that was under way

  // Between the two, what it is given is recorded and not done: kernels with their arguments as
  // they are now. Nothing is waited for meanwhile, nor is there work beside it. The host's memory
  // of recorded copies lives as long as they do, and the host writes it no more.
  void BeginRecording() {
    CheckNotRecording("a recording");
    StartRecording();
    recording_ = true;
  }
  std::unique_ptr<RecordedWork> EndRecording() {
    CHECK(recording_) << "nothing is being recorded";
    std::unique_ptr<RecordedWork> work = FinishRecording();
    recording_ = false;
    work->held_ = std::exchange(held_by_recording_, {});
    return work;
  }

  // All of it, behind what was given before. It lives until it is done.
  void Give(const RecordedWork& work) {
    CheckNotRecording("other recorded work");
    GiveRecorded(work);
    MarkBusy();
  }

  // For what cannot be recorded.
  void CheckNotRecording(const char* what) const {
    CHECK(!recording_) << what << " while work is being recorded, which is not done yet";
  }

 private:
  virtual void WaitForWork() = 0;
  virtual void StartRecording() = 0;
  virtual std::unique_ptr<RecordedWork> FinishRecording() = 0;
  virtual void GiveRecorded(const RecordedWork& work) = 0;

  bool busy_ = false;
  bool recording_ = false;
  int64_t num_given_ = 0;
  int64_t num_waits_ = 0;
  std::vector<std::shared_ptr<const void>> held_;
  std::vector<std::shared_ptr<const void>> held_by_recording_;
};

}  // namespace moebius
