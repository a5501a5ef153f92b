#include "parallel/mpi_communicator.h"

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>

#include "parallel/host_memory.h"
#include "parallel/message_communicator.h"
#include "parallel/shared_memory_transport.h"

namespace moebius {
namespace {

std::string MpiError(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return std::string(text, length);
}

// A message, in as many parts as its length needs; MPI counts with an int.
class MpiTransfer final : public Transfer {
 public:
  void Add(MPI_Request request, int64_t bytes) {
    requests_.push_back(request);
    bytes_.push_back(bytes);
  }

  void SetError(int code) { error_ = code; }

  absl::StatusOr<bool> Poll() override {
    for (; error_ == MPI_SUCCESS && next_ < requests_.size(); ++next_) {
      int done = 0;
      MPI_Status status;
      error_ = MPI_Test(&requests_[next_], &done, &status);
      if (error_ != MPI_SUCCESS) break;
      if (!done) return false;
      int count = 0;
      if (bytes_[next_] < 0) continue;
      MPI_Get_count(&status, MPI_BYTE, &count);
      if (count != bytes_[next_]) {
        return absl::InternalError(
            absl::StrCat(count, " bytes were sent where ", bytes_[next_], " are expected"));
      }
    }
    if (error_ != MPI_SUCCESS) return absl::InternalError(MpiError(error_));
    return true;
  }

 private:
  std::vector<MPI_Request> requests_;
  std::vector<int64_t> bytes_;  // -1 for a part that is sent
  size_t next_ = 0;
  int error_ = MPI_SUCCESS;
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(MPI_Comm communicator, int64_t max_message_bytes)
      : communicator_(communicator), max_message_bytes_(max_message_bytes) {
    MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN);
  }
  ~MpiTransport() override {
    if (communicator_ != MPI_COMM_WORLD) MPI_Comm_free(&communicator_);
  }

  std::unique_ptr<Transfer> Send(int to, int tag, std::span<const std::byte> bytes) override {
    return InParts(bytes.size(), [&](int64_t begin, int count, MpiTransfer& transfer) {
      MPI_Request request = MPI_REQUEST_NULL;
      const int error =
          MPI_Isend(bytes.data() + begin, count, MPI_BYTE, to, tag, communicator_, &request);
      transfer.Add(request, -1);
      return error;
    });
  }

  std::unique_ptr<Transfer> Receive(int from, int tag, std::span<std::byte> bytes) override {
    return InParts(bytes.size(), [&](int64_t begin, int count, MpiTransfer& transfer) {
      MPI_Request request = MPI_REQUEST_NULL;
      const int error =
          MPI_Irecv(bytes.data() + begin, count, MPI_BYTE, from, tag, communicator_, &request);
      transfer.Add(request, count);
      return error;
    });
  }

  std::unique_ptr<Transport> Split(int, const std::vector<int>& members) override {
    MPI_Comm group = MPI_COMM_NULL;
    int rank = 0, size = 0;
    MPI_Comm_rank(communicator_, &rank);
    CHECK_EQ(MPI_Comm_split(communicator_, members.front(), rank, &group), MPI_SUCCESS);
    MPI_Comm_size(group, &size);
    CHECK_EQ(size, static_cast<int>(members.size()));
    return std::make_unique<MpiTransport>(group, max_message_bytes_);
  }

 private:
  template <class Part>
  std::unique_ptr<Transfer> InParts(size_t size, const Part& part) {
    auto transfer = std::make_unique<MpiTransfer>();
    const int64_t total = static_cast<int64_t>(size);
    for (int64_t begin = 0; begin < total; begin += max_message_bytes_) {
      const int count = static_cast<int>(std::min(max_message_bytes_, total - begin));
      if (const int error = part(begin, count, *transfer)) transfer->SetError(error);
    }
    return transfer;
  }

  MPI_Comm communicator_;
  const int64_t max_message_bytes_;
};

int FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

int NumCores() {
  cpu_set_t cores;
  return ::sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

// A rank that spins while it waits takes the core from the rank it waits for. Open MPI notices only
// when there are more ranks than declared slots; what the user sets wins.
void AdviseYield(int threads_per_rank) {
  const int busy = FromEnvironment("OMPI_COMM_WORLD_LOCAL_SIZE", 1) * threads_per_rank;
  if (busy > NumCores()) ::setenv("OMPI_MCA_mpi_yield_when_idle", "1", /*overwrite=*/0);
}

// Null where a process cannot have memory in common with another of its host.
std::shared_ptr<LaneEnds> ShareMemory(int rank, uint64_t run, std::vector<ProcessId> processes) {
  auto memory = HostMemory::Create(rank, run, std::move(processes));
  const int file = memory.ok() ? (*memory)->file() : -1;
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> files(size);
  MPI_Allgather(&file, 1, MPI_INT, files.data(), 1, MPI_INT, MPI_COMM_WORLD);
  int all_can = memory.ok() && (*memory)->Connect(files).ok();
  MPI_Allreduce(MPI_IN_PLACE, &all_can, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  if (!all_can) return nullptr;
  (*memory)->CloseFile();
  return MakeLaneEnds(*std::move(memory));
}

std::unique_ptr<Transport> MakeTransport(const std::vector<int>& members,
                                         std::shared_ptr<LaneEnds> lane_ends,
                                         int64_t max_message_bytes) {
  auto mpi = std::make_unique<MpiTransport>(MPI_COMM_WORLD, max_message_bytes);
  if (lane_ends == nullptr) return mpi;
  return std::make_unique<SharedMemoryTransport>(0, members, std::move(lane_ends), std::move(mpi));
}

// Different in each run, the same on all ranks.
uint64_t AgreeOnRun() {
  uint64_t run = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  MPI_Bcast(&run, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  return run;
}

std::vector<ProcessId> GatherProcesses(int size) {
  const ProcessId own = ThisProcess();
  std::vector<ProcessId> all(size);
  MPI_Allgather(&own, sizeof own, MPI_BYTE, all.data(), sizeof own, MPI_BYTE, MPI_COMM_WORLD);
  return all;
}

}  // namespace

int NumMpiProcesses() {
  if (const int size = FromEnvironment("OMPI_COMM_WORLD_SIZE", 0)) return size;
  const int tasks = FromEnvironment("SLURM_STEP_NUM_TASKS", 0);
  return tasks > 1 || std::getenv("PMIX_RANK") != nullptr ? std::max(tasks, 1) : 0;
}

absl::StatusOr<std::unique_ptr<MpiWorld>> MpiWorld::Start(const Options& options) {
  AdviseYield(options.threads_per_rank);
  int provided = 0;
  if (const int error = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided)) {
    return absl::UnavailableError(absl::StrCat("MPI does not start: ", MpiError(error)));
  }
  auto world = std::unique_ptr<MpiWorld>(new MpiWorld());  // from here on ends MPI
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (const int expected = NumMpiProcesses(); expected > 0 && expected != size) {
    return absl::FailedPreconditionError(absl::StrCat(
        "MPI sees ", size, " processes where ", expected, " were started: the launcher and the ",
        "MPI library do not know each other. Under Slurm, start with srun --mpi=pmix"));
  }
  const uint64_t run = AgreeOnRun();
  const std::vector<ProcessId> processes = GatherProcesses(size);
  auto board = Board::InFiles(options.board_directory, rank, run, processes);
  // The others go on and would wait for this rank: it ends the job.
  if (!board.ok()) EndProcess(std::string(board.status().message()), 1);
  world->progress_ = std::make_unique<Progress>(rank, *std::move(board), options.wait);
  world->progress_->set_next_group(1);
  std::vector<int> members(size);
  std::iota(members.begin(), members.end(), 0);
  if (options.share_memory) world->lane_ends_ = ShareMemory(rank, run, processes);
  auto transport = MakeTransport(members, world->lane_ends_, options.max_message_bytes);
  world->communicator_ = std::make_unique<MessageCommunicator>(
      "world", 0, std::move(members), std::move(transport), world->progress_.get());
  return world;
}

MpiWorld::~MpiWorld() {
  communicator_.reset();
  MPI_Finalize();
}

}  // namespace moebius
