#include "parallel/host_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

namespace moebius {
namespace {

// Measured: docs/performance.md, "Two ranks". Many ranks of a host get shorter lanes.
constexpr int64_t kMaxLane = int64_t{2} << 20, kMinLane = int64_t{16} << 10;
constexpr int64_t kInbox = int64_t{32} << 20;

absl::Status Unavailable(const char* what) {
  return absl::UnavailableError(absl::StrCat("shared memory: ", what, ": ", std::strerror(errno)));
}

}  // namespace

struct alignas(64) HostMemory::Head {
  uint64_t run;
  int64_t rank;
  uint64_t address;  // of itself, in the process of its rank
};

absl::StatusOr<std::unique_ptr<HostMemory>> HostMemory::Create(int rank, uint64_t run,
                                                               std::vector<ProcessId> processes) {
  auto memory = std::unique_ptr<HostMemory>(new HostMemory(rank, run, std::move(processes)));
  memory->file_ = ::memfd_create("moebius-messages", MFD_CLOEXEC);
  if (memory->file_ < 0) return Unavailable("memfd_create");
  // Pages are taken now, so that a lack of memory cannot kill a later write.
  errno = ::posix_fallocate(memory->file_, 0, memory->inbox_bytes());
  if (errno != 0) return Unavailable("posix_fallocate");
  ASSIGN_OR_RETURN(std::byte* const inbox, memory->Map(memory->file_));
  new (inbox) Head{.run = run, .rank = rank, .address = reinterpret_cast<uint64_t>(inbox)};
  memory->inboxes_[rank] = inbox;
  return memory;
}

HostMemory::HostMemory(int rank, uint64_t run, std::vector<ProcessId> processes)
    : rank_(rank),
      run_(run),
      processes_(std::move(processes)),
      inboxes_(processes_.size()),
      can_read_(processes_.size()) {
  const uint64_t host = processes_[rank].host;
  for (const ProcessId& process : processes_) {
    const bool is_here = host != 0 && process.host == host;
    places_.push_back(is_here ? num_places_++ : -1);
  }
  const auto share = static_cast<uint64_t>(kInbox / std::max(num_places_, 1));
  lane_capacity_ = std::clamp(static_cast<int64_t>(std::bit_floor(share)), kMinLane, kMaxLane);
}

HostMemory::~HostMemory() {
  CloseFile();
  for (std::byte* inbox : inboxes_) {
    if (inbox != nullptr) ::munmap(inbox, static_cast<size_t>(inbox_bytes()));
  }
}

void HostMemory::CloseFile() {
  if (file_ >= 0) ::close(std::exchange(file_, -1));
}

int64_t HostMemory::inbox_bytes() const {
  return static_cast<int64_t>(sizeof(Head)) +
         std::max(num_places_ - 1, 0) * MessageLane::MemoryBytes(lane_capacity_);
}

absl::StatusOr<std::byte*> HostMemory::Map(int file) const {
  void* data = ::mmap(nullptr, static_cast<size_t>(inbox_bytes()), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, file, 0);
  if (data == MAP_FAILED) return Unavailable("mmap");
  return static_cast<std::byte*>(data);
}

absl::Status HostMemory::Connect(const std::vector<int>& files) {
  for (int r = 0; r < num_ranks(); ++r) {
    if (Reaches(r)) RETURN_IF_ERROR(Open(r, files[r]));
  }
  return absl::OkStatus();
}

absl::Status HostMemory::Open(int rank, int file) {
  const std::string path = absl::StrCat("/proc/", processes_[rank].number, "/fd/", file);
  const int opened = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (opened < 0) return Unavailable(path.c_str());
  struct stat info;
  const bool fits = ::fstat(opened, &info) == 0 && info.st_size == inbox_bytes();
  auto inbox = fits ? Map(opened) : absl::UnavailableError(absl::StrCat(path, ": no inbox"));
  ::close(opened);
  RETURN_IF_ERROR(inbox.status());
  inboxes_[rank] = *inbox;
  const auto* head = reinterpret_cast<const Head*>(*inbox);
  if (head->run != run_ || head->rank != rank) {
    return absl::UnavailableError(absl::StrCat(path, ": not the inbox of rank ", rank));
  }
  Head seen = {};
  const auto read = Read(rank, head->address, std::as_writable_bytes(std::span(&seen, 1)));
  can_read_[rank] = read.ok() && *read == sizeof(Head) && seen.run == run_ && seen.rank == rank;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> HostMemory::Read(int rank, uint64_t address,
                                         std::span<std::byte> to) const {
  const iovec here = {.iov_base = to.data(), .iov_len = to.size()};
  const iovec there = {.iov_base = reinterpret_cast<void*>(address), .iov_len = to.size()};
  const auto process = static_cast<pid_t>(processes_[rank].number);
  const int64_t count = ::process_vm_readv(process, &here, 1, &there, 1, 0);
  if (count >= 0) return count;
  if (errno == ESRCH) return 0;
  return Unavailable("process_vm_readv");
}

// An inbox has no lane from its own rank.
MessageLane HostMemory::Lane(int from, int to) const {
  const int place = places_[from] - (places_[from] > places_[to] ? 1 : 0);
  std::byte* const lanes = inboxes_[to] + sizeof(Head);
  return {lanes + place * MessageLane::MemoryBytes(lane_capacity_), lane_capacity_};
}

}  // namespace moebius
