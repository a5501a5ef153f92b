// How the devices of some ranks come together: the ranks agree on an id through the host, and join
// in a thread of their own, for joining blocks. All of it goes on behind the rank's back, and ranks
// may use their groups for the first time in any order.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "core/base/status.h"
#include "kernels/device_collectives.h"
#include "parallel/communicator.h"

namespace moebius {

class DeviceLink {
 public:
  // `rank` of the `size` ranks of this link. `id` is known here once `agreed` is done.
  // `collectives` outlives this.
  DeviceLink(DeviceCollectives& collectives, int rank, int size,
             std::shared_ptr<DeviceCollectives::Id> id, Handle agreed);

  // The devices' group once all have joined, null before; an error if they cannot.
  absl::StatusOr<DeviceGroup*> Poll();

  // Exchanges begin and end in the order of their numbers.
  int64_t NextNumber() { return num_started_++; }
  bool BeginsNext(int64_t number) const { return number == num_begun_; }
  void SetBegun() { ++num_begun_; }
  bool EndsNext(int64_t number) const { return number == num_ended_; }
  void SetEnded() { ++num_ended_; }

  void Abort() {
    if (has_joined_ && group_ != nullptr) group_->Abort();
  }

 private:
  void Join();

  DeviceCollectives& collectives_;
  const int rank_, size_;
  const std::shared_ptr<DeviceCollectives::Id> id_;
  Handle agreed_;
  int64_t num_started_ = 0, num_begun_ = 0, num_ended_ = 0;
  std::atomic<bool> has_joined_ = false;  // after it the joining thread writes nothing
  std::string failure_;
  std::unique_ptr<DeviceGroup> group_;
  std::jthread joining_;
};

}  // namespace moebius
