#include "parallel/board.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/base/check.h"

namespace moebius {
namespace {

constexpr int kHistory = 16;

// A call in shared memory. `sequence` is 0 while the rest is being written.
struct Slot {
  std::atomic<int64_t> sequence;
  std::atomic<int64_t> order;
  std::atomic<int64_t> count;
  std::atomic<int64_t> what;  // collective, dtype, root

  void Store(const Call& call) {
    sequence = 0;
    order = call.order;
    count = call.count;
    what = static_cast<int64_t>(call.collective) | static_cast<int64_t>(call.dtype) << 8 |
           static_cast<int64_t>(call.root) << 16;
    sequence = call.sequence;
  }

  std::optional<Call> Load() const {
    Call call;
    call.sequence = sequence;
    call.order = order;
    call.count = count;
    const int64_t packed = what;
    call.collective = static_cast<Collective>(packed & 0xFF);
    call.dtype = static_cast<DType>(packed >> 8 & 0xFF);
    call.root = static_cast<int>(packed >> 16);
    if (call.sequence == 0 || sequence != call.sequence) return std::nullopt;
    return call;
  }
};
static_assert(std::atomic<int64_t>::is_always_lock_free, "shared between processes");

}  // namespace

// All zero when nothing has been published.
struct Board::Page {
  struct Group {
    char name[32];  // written once, before `latest` leaves 0
    std::atomic<int64_t> latest;
    std::array<Slot, kHistory> slots;

    std::optional<Call> At(int64_t sequence) const {
      const auto call = slots[sequence % kHistory].Load();
      return call && call->sequence == sequence ? call : std::nullopt;
    }
  };
  std::atomic<uint64_t> run;
  std::array<Group, kMaxGroups> groups;
};

namespace {

class MemoryBoard : public Board {
 public:
  explicit MemoryBoard(int num_ranks) {
    for (int r = 0; r < num_ranks; ++r) pages_.push_back(std::make_shared<Page>());
  }

 protected:
  std::shared_ptr<Page> PageOf(int rank) const override { return pages_[rank]; }

 private:
  std::vector<std::shared_ptr<Page>> pages_;
};

class FileBoard : public Board {
 public:
  static absl::StatusOr<std::unique_ptr<Board>> Create(const std::string& directory, int rank,
                                                       uint64_t run) {
    auto board = std::unique_ptr<FileBoard>(new FileBoard(directory, rank, run));
    if (::mkdir(directory.c_str(), 0777) != 0 && errno != EEXIST) {
      return absl::UnavailableError(
          absl::StrCat(directory, ": cannot make the folder: ", std::strerror(errno)));
    }
    const std::string path = board->PathOf(rank);
    ::unlink(path.c_str());  // an older run may still be reading it
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT, 0666);
    // Blocks are taken now, so that a full disk cannot kill a later write to the mapping.
    const int error = file < 0 ? errno : ::posix_fallocate(file, 0, sizeof(Page));
    if (error == 0) board->own_ = Map(file, PROT_READ | PROT_WRITE);
    if (file >= 0) ::close(file);
    if (board->own_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat(path, ": cannot be made and mapped: ", std::strerror(error)));
    }
    board->own_->run = run;
    return board;
  }

  ~FileBoard() override { ::unlink(PathOf(rank_).c_str()); }

 protected:
  // Opened anew each time: so network file systems look for changes.
  std::shared_ptr<Page> PageOf(int rank) const override {
    if (rank == rank_) return own_;
    const int file = ::open(PathOf(rank).c_str(), O_RDONLY);
    if (file < 0) return nullptr;
    struct stat info;
    std::shared_ptr<Page> page;
    if (::fstat(file, &info) == 0 && info.st_size == static_cast<off_t>(sizeof(Page))) {
      page = Map(file, PROT_READ);
    }
    ::close(file);
    if (page != nullptr && page->run != run_) return nullptr;
    return page;
  }

 private:
  FileBoard(std::string directory, int rank, uint64_t run)
      : directory_(std::move(directory)), rank_(rank), run_(run) {}

  std::string PathOf(int rank) const { return absl::StrFormat("%s/rank-%03d", directory_, rank); }

  static std::shared_ptr<Page> Map(int file, int protection) {
    void* data = ::mmap(nullptr, sizeof(Page), protection, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) return nullptr;
    return {static_cast<Page*>(data), [](Page* page) { ::munmap(page, sizeof(Page)); }};
  }

  const std::string directory_;
  const int rank_;
  const uint64_t run_;
  std::shared_ptr<Page> own_;
};

}  // namespace

const char* NameOf(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
      return "all-reduce";
    case Collective::kAllReduceMax:
      return "all-reduce (maximum)";
    case Collective::kAllGather:
      return "all-gather";
    case Collective::kReduceScatter:
      return "reduce-scatter";
    case Collective::kAllToAllV:
      return "all-to-all";
    case Collective::kBroadcast:
      return "broadcast";
    case Collective::kBarrier:
      return "barrier";
    case Collective::kPointToPoint:
      return "message";
  }
  return "?";
}

std::string Call::ToString() const {
  std::string text = absl::StrCat(NameOf(collective), " ", sequence);
  if (collective == Collective::kBarrier) return text;
  absl::StrAppend(&text, " (", count, " ", moebius::NameOf(dtype));
  if (collective == Collective::kAllToAllV) absl::StrAppend(&text, " a row");
  if (collective == Collective::kBroadcast) absl::StrAppend(&text, " from ", root);
  return text + ")";
}

std::unique_ptr<Board> Board::InMemory(int num_ranks) {
  return std::make_unique<MemoryBoard>(num_ranks);
}

absl::StatusOr<std::unique_ptr<Board>> Board::InFiles(const std::string& directory, int rank,
                                                      uint64_t run) {
  return FileBoard::Create(directory, rank, run);
}

void Board::Publish(int rank, int group, const std::string& group_name, const Call& call) {
  CHECK(0 <= group && group < kMaxGroups) << "too many groups";
  Page::Group& shown = PageOf(rank)->groups[group];
  if (shown.latest == 0) std::strncpy(shown.name, group_name.c_str(), sizeof(shown.name) - 1);
  shown.slots[call.sequence % kHistory].Store(call);
  shown.latest = call.sequence;
}

Call Board::Latest(int rank, int group) const {
  const auto page = PageOf(rank);
  if (page == nullptr) return {};
  return page->groups[group].At(page->groups[group].latest).value_or(Call{});
}

std::optional<Call> Board::At(int rank, int group, int64_t sequence) const {
  const auto page = PageOf(rank);
  return page == nullptr ? std::nullopt : page->groups[group].At(sequence);
}

std::string Board::LastSeen(int rank) const {
  const auto page = PageOf(rank);
  if (page == nullptr) return "has shown nothing";
  Call last;
  const char* group_name = nullptr;
  for (const Page::Group& group : page->groups) {
    const Call call = group.At(group.latest).value_or(Call{});
    if (call.order <= last.order) continue;
    last = call;
    group_name = group.name;
  }
  if (last.order == 0) return "has started nothing";
  return absl::StrCat("last started ", last.ToString(), " of group ", group_name);
}

}  // namespace moebius
