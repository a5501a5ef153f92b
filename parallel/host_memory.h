// Memory that the processes of one host share: a lane for messages from each to each. It has no
// name in any file system, so it is gone when the last process has ended, however that ended.
// And reading the memory of another process without its help, where the system allows it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/process.h"
#include "core/base/status.h"
#include "parallel/message_lane.h"

namespace moebius {

class HostMemory {
 public:
  // This rank's inbox: a lane from each other rank whose process is on this host. `run` and
  // `processes`, one a rank, are the same on all ranks. Unavailable if the system gives no such
  // memory.
  static absl::StatusOr<std::unique_ptr<HostMemory>> Create(int rank, uint64_t run,
                                                            std::vector<ProcessId> processes);
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  // The inbox as an open file of this process, for Connect of the others.
  int file() const { return file_; }

  // Maps the inboxes of the other ranks of this host. `files`: file() of every rank. Unavailable
  // if one of them cannot be opened, as where containers hide processes from each other.
  absl::Status Connect(const std::vector<int>& files);

  // Once all ranks have come back from Connect: no process needs another's open file any more.
  void CloseFile();

  // Whether the rank is another one of this host.
  bool Reaches(int rank) const { return rank != rank_ && places_[rank] >= 0; }
  int num_ranks() const { return static_cast<int>(places_.size()); }

  // REQUIRES of the rest: Reaches(rank), and Connect has succeeded.

  // Ends of a lane: to be made once.
  MessageLane LaneTo(int rank) const { return Lane(/*from=*/rank_, /*to=*/rank); }
  MessageLane LaneFrom(int rank) const { return Lane(/*from=*/rank, /*to=*/rank_); }
  int64_t lane_capacity() const { return lane_capacity_; }

  // Copies from the process of a rank, whose memory at `address` must not change meanwhile. Returns
  // how many bytes: fewer than asked for, or none, if the process has ended.
  absl::StatusOr<int64_t> Read(int rank, uint64_t address, std::span<std::byte> to) const;
  bool CanRead(int rank) const { return can_read_[rank]; }

 private:
  struct Head;  // at the start of an inbox

  HostMemory(int rank, uint64_t run, std::vector<ProcessId> processes);
  absl::StatusOr<std::byte*> Map(int file) const;
  absl::Status Open(int rank, int file);
  MessageLane Lane(int from, int to) const;
  int64_t inbox_bytes() const;

  const int rank_;
  const uint64_t run_;
  const std::vector<ProcessId> processes_;
  std::vector<int> places_;  // of each rank among those of this host; -1: it is on another
  int num_places_ = 0;
  int64_t lane_capacity_ = 0;
  int file_ = -1;
  std::vector<std::byte*> inboxes_;  // null where not mapped
  std::vector<bool> can_read_;
};

}  // namespace moebius
