// NCCL for ranks that are threads of one process, on GPUs that the CPU plays: the functions that we
// use, under their names, in a library that tests open in place of NCCL. It is strict: it refuses
// arguments that the documentation does not allow, ranks whose exchanges do not fit, and is as
// late as NCCL may be: a send is done when it has been received, and one exchange of a communicator
// begins when the one before is done.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/emulation/stream.h"
#include "kernels/cuda/nccl_functions.h"

namespace moebius::cuda {
namespace {

using cuda_emulation::Stream;

enum Result { kSuccess = 0, kInvalidArgument = 4, kInvalidUsage = 5 };
constexpr size_t kSizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};  // of ncclDataType_t

using Bytes = std::vector<char>;

struct Message {
  Bytes bytes;
  bool taken = false;
};

// A collective on its way, by its number.
struct Meeting {
  std::string call;
  std::vector<std::optional<Bytes>> given;
  int num_left = 0;
};

// The ranks that share an id.
struct World {
  std::mutex mutex;
  std::condition_variable joined;
  std::vector<bool> members;
  int num_joined = 0;
  std::map<int64_t, Meeting> meetings;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>> messages;  // from, to
};

struct GroupedCall {
  bool is_send;
  char* data;
  size_t bytes;
  int peer;
};

}  // namespace

struct NcclCommunicator {
  std::shared_ptr<World> world;
  int rank;
  int size;
  int64_t num_collectives = 0;
  std::atomic<int> async_error = kSuccess;
};

namespace {

thread_local std::string last_error;
thread_local int group_depth = 0;
thread_local std::map<std::pair<NcclComm, Stream*>, std::vector<GroupedCall>> grouped;

int Refuse(int result, const std::string& why) {
  last_error = why;
  return result;
}

std::shared_ptr<World> WorldOf(const NcclId& id) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<World>> worlds;
  const std::lock_guard lock(mutex);
  std::weak_ptr<World>& world = worlds[std::string(id.internal, sizeof id.internal)];
  std::shared_ptr<World> shared = world.lock();
  if (shared == nullptr) world = shared = std::make_shared<World>();
  return shared;
}

// Of `count` elements at `data`; an error says what is wrong with them.
int Check(const void* data, size_t count, int dtype, NcclComm comm, Stream* stream, size_t* bytes) {
  if (comm == nullptr || stream == nullptr) return Refuse(kInvalidArgument, "no communicator");
  if (dtype < 0 || dtype >= static_cast<int>(std::size(kSizes))) {
    return Refuse(kInvalidArgument, "no such type");
  }
  *bytes = count * kSizes[dtype];
  if (!stream->memory().Owns(data, static_cast<int64_t>(*bytes))) {
    return Refuse(kInvalidArgument, "not memory of the device");
  }
  return kSuccess;
}

// False as long as ranks are missing; never true where they do not call the same.
bool Meet(NcclComm comm, int64_t number, const std::string& call, const Bytes& mine,
          const std::function<void(const std::vector<std::optional<Bytes>>&)>& finish) {
  World& world = *comm->world;
  const std::lock_guard lock(world.mutex);
  Meeting& meeting = world.meetings[number];
  if (meeting.given.empty()) {
    meeting.call = call;
    meeting.given.resize(comm->size);
  }
  if (meeting.call != call) {
    comm->async_error = kInvalidUsage;
    return false;
  }
  if (!meeting.given[comm->rank]) meeting.given[comm->rank] = mine;
  if (!std::ranges::all_of(meeting.given, [](const auto& x) { return x.has_value(); }))
    return false;
  finish(meeting.given);
  if (++meeting.num_left == comm->size) world.meetings.erase(number);
  return true;
}

int Collective(const std::string& call, const void* from, size_t bytes, NcclComm comm,
               Stream* stream,
               std::function<void(const std::vector<std::optional<Bytes>>&)> finish) {
  if (group_depth > 0) return Refuse(kInvalidUsage, "a collective within a group");
  const int64_t number = ++comm->num_collectives;
  auto mine = std::make_shared<std::optional<Bytes>>();
  stream->AddStep([=] {
    const char* data = static_cast<const char*>(from);
    if (!*mine) *mine = Bytes(data, data + bytes);
    return Meet(comm, number, call, **mine, finish);
  });
  return kSuccess;
}

int AddGrouped(bool is_send, const void* data, size_t count, int dtype, int peer, NcclComm comm,
               void* stream) {
  size_t bytes = 0;
  auto* const queue = static_cast<Stream*>(stream);
  if (const int error = Check(data, count, dtype, comm, queue, &bytes)) return error;
  if (peer < 0 || peer >= comm->size) return Refuse(kInvalidArgument, "no such rank");
  if (group_depth == 0) return Refuse(kInvalidUsage, "a message outside of a group may block");
  grouped[{comm, queue}].push_back(
      {is_send, static_cast<char*>(const_cast<void*>(data)), bytes, peer});
  return kSuccess;
}

// The messages of a group, all at once.
class Exchange {
 public:
  Exchange(NcclComm comm, std::vector<GroupedCall> calls) : comm_(comm), calls_(std::move(calls)) {}

  bool Step() {
    World& world = *comm_->world;
    const std::lock_guard lock(world.mutex);
    if (!begun_) Begin(world);
    std::erase_if(calls_,
                  [&](const GroupedCall& call) { return !call.is_send && Take(world, call); });
    const bool received =
        std::ranges::all_of(calls_, [](const GroupedCall& call) { return call.is_send; });
    return received &&
           std::ranges::all_of(sent_, [](const auto& message) { return message->taken; });
  }

 private:
  void Begin(World& world) {
    begun_ = true;
    for (const GroupedCall& call : calls_) {
      if (!call.is_send) continue;
      sent_.push_back(std::make_shared<Message>(Message{Bytes(call.data, call.data + call.bytes)}));
      world.messages[{comm_->rank, call.peer}].push_back(sent_.back());
    }
  }
  bool Take(World& world, const GroupedCall& call) {
    auto& messages = world.messages[{call.peer, comm_->rank}];
    if (messages.empty()) return false;
    if (messages.front()->bytes.size() != call.bytes) {
      comm_->async_error = kInvalidUsage;
      return false;
    }
    std::memcpy(call.data, messages.front()->bytes.data(), call.bytes);
    messages.front()->taken = true;
    messages.pop_front();
    return true;
  }

  const NcclComm comm_;
  std::vector<GroupedCall> calls_;
  std::vector<std::shared_ptr<Message>> sent_;
  bool begun_ = false;
};

}  // namespace
}  // namespace moebius::cuda

using moebius::cuda::NcclComm;
using moebius::cuda::NcclId;

extern "C" {

int ncclGetVersion(int* version) {
  *version = 22809;
  return moebius::cuda::kSuccess;
}

int ncclGetUniqueId(NcclId* id) {
  static std::atomic<int64_t> next = 1;
  const int64_t number = next++;
  std::memset(id, 0, sizeof *id);
  std::memcpy(id, &number, sizeof number);
  return moebius::cuda::kSuccess;
}

int ncclCommInitRank(NcclComm* comm, int num_ranks, NcclId id, int rank) {
  using namespace moebius::cuda;  // NOLINT: of the file's own
  if (rank < 0 || rank >= num_ranks) return Refuse(kInvalidArgument, "no such rank");
  const auto world = WorldOf(id);
  std::unique_lock lock(world->mutex);
  if (world->members.empty()) world->members.resize(num_ranks);
  if (static_cast<int>(world->members.size()) != num_ranks || world->members[rank]) {
    return Refuse(kInvalidArgument, "another group, or the rank has joined before");
  }
  world->members[rank] = true;
  ++world->num_joined;
  world->joined.notify_all();
  world->joined.wait(lock, [&] { return world->num_joined == num_ranks; });
  *comm = new NcclCommunicator{.world = world, .rank = rank, .size = num_ranks};
  return kSuccess;
}

int ncclCommDestroy(NcclComm comm) {
  delete comm;
  return moebius::cuda::kSuccess;
}

// What it has been given is left in its streams: nothing is freed.
int ncclCommAbort(NcclComm comm) {
  std::fprintf(stderr, "fake NCCL: rank %d aborts\n", comm->rank);
  return moebius::cuda::kSuccess;
}

int ncclCommGetAsyncError(NcclComm comm, int* error) {
  *error = comm->async_error;
  return moebius::cuda::kSuccess;
}

const char* ncclGetErrorString(int result) {
  switch (result) {
    case moebius::cuda::kSuccess:
      return "no error";
    case moebius::cuda::kInvalidArgument:
      return "invalid argument";
    default:
      return "invalid usage";
  }
}

const char* ncclGetLastError(NcclComm) { return moebius::cuda::last_error.c_str(); }

int ncclGroupStart() {
  ++moebius::cuda::group_depth;
  return moebius::cuda::kSuccess;
}

int ncclGroupEnd() {
  using namespace moebius::cuda;  // NOLINT: of the file's own
  if (group_depth == 0) return Refuse(kInvalidUsage, "no group has been started");
  if (--group_depth > 0) return kSuccess;
  for (auto& [where, calls] : std::exchange(grouped, {})) {
    auto exchange = std::make_shared<Exchange>(where.first, std::move(calls));
    where.second->AddStep([exchange] { return exchange->Step(); });
  }
  return kSuccess;
}

int ncclSend(const void* from, size_t count, int dtype, int peer, NcclComm comm, void* stream) {
  return moebius::cuda::AddGrouped(true, from, count, dtype, peer, comm, stream);
}

int ncclRecv(void* to, size_t count, int dtype, int peer, NcclComm comm, void* stream) {
  return moebius::cuda::AddGrouped(false, to, count, dtype, peer, comm, stream);
}

int ncclAllGather(const void* mine, void* all, size_t count, int dtype, NcclComm comm,
                  void* stream) {
  using namespace moebius::cuda;  // NOLINT: of the file's own
  size_t bytes = 0;
  auto* const queue = static_cast<Stream*>(stream);
  if (const int error = Check(mine, count, dtype, comm, queue, &bytes)) return error;
  if (const int error = Check(all, count * comm->size, dtype, comm, queue, &bytes)) return error;
  bytes /= comm->size;
  return Collective("all-gather " + std::to_string(count) + " " + std::to_string(dtype), mine,
                    bytes, comm, queue, [=](const std::vector<std::optional<Bytes>>& given) {
                      for (size_t r = 0; r < given.size(); ++r) {
                        std::memcpy(static_cast<char*>(all) + r * bytes, given[r]->data(), bytes);
                      }
                    });
}

int ncclBroadcast(const void* from, void* to, size_t count, int dtype, int root, NcclComm comm,
                  void* stream) {
  using namespace moebius::cuda;  // NOLINT: of the file's own
  size_t bytes = 0;
  auto* const queue = static_cast<Stream*>(stream);
  if (const int error = Check(from, count, dtype, comm, queue, &bytes)) return error;
  if (const int error = Check(to, count, dtype, comm, queue, &bytes)) return error;
  if (root < 0 || root >= comm->size) return Refuse(kInvalidArgument, "no such root");
  return Collective("broadcast " + std::to_string(count) + " " + std::to_string(dtype) + " " +
                        std::to_string(root),
                    from, bytes, comm, queue, [=](const std::vector<std::optional<Bytes>>& given) {
                      std::memcpy(to, given[root]->data(), bytes);
                    });
}

}  // extern "C"
