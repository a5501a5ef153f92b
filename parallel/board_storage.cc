// Where the pages of a board lie: in memory, or in one file a rank.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "parallel/board_page.h"

namespace moebius {
namespace {

class MemoryBoard : public Board {
 public:
  explicit MemoryBoard(int num_ranks) : Board(std::vector<ProcessId>(num_ranks)) {
    for (int r = 0; r < num_ranks; ++r) pages_.push_back(std::make_shared<Page>());
  }

 protected:
  std::shared_ptr<Page> PageOf(int rank) const override { return pages_[rank]; }

 private:
  std::vector<std::shared_ptr<Page>> pages_;
};

class FileBoard : public Board {
 public:
  FileBoard(std::string directory, int rank, uint64_t run, std::vector<ProcessId> processes)
      : Board(std::move(processes)), directory_(std::move(directory)), rank_(rank), run_(run) {}
  ~FileBoard() override { ::unlink(PathOf(rank_).c_str()); }

  absl::Status Create() {
    if (::mkdir(directory_.c_str(), 0777) != 0 && errno != EEXIST) {
      return absl::UnavailableError(
          absl::StrCat(directory_, ": cannot make the folder: ", std::strerror(errno)));
    }
    const std::string path = PathOf(rank_);
    ::unlink(path.c_str());  // an older run may still be reading it
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    // Blocks are taken now, so that a full disk cannot kill a later write to the mapping.
    int error = file < 0 ? errno : ::posix_fallocate(file, 0, sizeof(Page));
    if (error == 0) own_ = Map(file, PROT_READ | PROT_WRITE);
    if (error == 0 && own_ == nullptr) error = errno;
    if (file >= 0) ::close(file);
    if (own_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat(path, ": cannot be made and mapped: ", std::strerror(error)));
    }
    own_->run = run_;
    return absl::OkStatus();
  }

 protected:
  // Opened anew each time: so network file systems look for changes.
  std::shared_ptr<Page> PageOf(int rank) const override {
    if (rank == rank_) return own_;
    const int file = ::open(PathOf(rank).c_str(), O_RDONLY | O_CLOEXEC);
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

std::unique_ptr<Board> Board::InMemory(int num_ranks) {
  return std::make_unique<MemoryBoard>(num_ranks);
}

absl::StatusOr<std::unique_ptr<Board>> Board::InFiles(const std::string& directory, int rank,
                                                      uint64_t run,
                                                      std::vector<ProcessId> processes) {
  auto board = std::make_unique<FileBoard>(directory, rank, run, std::move(processes));
  RETURN_IF_ERROR(board->Create());
  return board;
}

}  // namespace moebius
