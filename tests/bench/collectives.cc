// Collectives between the ranks of one MPI job: this project's, and Open MPI's own beside them.
//   mpirun -np 2 collectives [all-reduce]
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "parallel/mpi_communicator.h"

namespace moebius {
namespace {

constexpr int64_t kKiB = 1024, kMiB = 1024 * kKiB;
constexpr int64_t kSizes[] = {kKiB, 16 * kKiB, 256 * kKiB, kMiB, 4 * kMiB, 16 * kMiB, 64 * kMiB};

// One of both ways to do something with `bytes` on each rank.
struct Contest {
  const char* name;
  std::function<void(int64_t bytes)> ours, theirs;
};

class Buffers {
 public:
  explicit Buffers(int64_t bytes) : in_(bytes / 4, 1.0f), out_(bytes / 4, 1.0f) {}
  std::span<float> in(int64_t bytes) { return std::span(in_).first(bytes / 4); }
  std::span<float> out(int64_t bytes) { return std::span(out_).first(bytes / 4); }

 private:
  std::vector<float> in_, out_;
};

std::vector<Contest> Contests(Communicator& world, Buffers& buffers) {
  const int size = world.size();
  const auto floats = [](int64_t bytes) { return static_cast<int>(bytes / 4); };
  const auto even = [size](int64_t bytes) {  // rows of one float
    return std::vector<int32_t>(size, static_cast<int32_t>(bytes / 4 / size));
  };
  return {
      {"all-reduce", [&](int64_t bytes) { world.AllReduce(buffers.in(bytes)).Wait(); },
       [&, floats](int64_t bytes) {
         MPI_Allreduce(MPI_IN_PLACE, buffers.in(bytes).data(), floats(bytes), MPI_FLOAT, MPI_SUM,
                       MPI_COMM_WORLD);
       }},
      {"reduce-scatter",
       [&, size](int64_t bytes) {
         world.ReduceScatter(buffers.in(bytes), buffers.out(bytes / size)).Wait();
       },
       [&, size, floats](int64_t bytes) {
         MPI_Reduce_scatter_block(buffers.in(bytes).data(), buffers.out(bytes).data(),
                                  floats(bytes / size), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
       }},
      {"all-gather",
       [&, size](int64_t bytes) {
         world.AllGather(buffers.in(bytes / size), buffers.out(bytes)).Wait();
       },
       [&, size, floats](int64_t bytes) {
         MPI_Allgather(buffers.in(bytes).data(), floats(bytes / size), MPI_FLOAT,
                       buffers.out(bytes).data(), floats(bytes / size), MPI_FLOAT, MPI_COMM_WORLD);
       }},
      {"all-to-all of rows",
       [&, even](int64_t bytes) {
         const std::vector<int32_t> counts = even(bytes);
         world.AllToAllV({buffers.in(bytes), counts}, {buffers.out(bytes), counts}, 1).Wait();
       },
       [&, even, size](int64_t bytes) {
         const std::vector<int32_t> counts = even(bytes);
         std::vector<int> begins(size);
         for (int r = 0; r < size; ++r) begins[r] = r * counts[0];
         MPI_Alltoallv(buffers.in(bytes).data(), counts.data(), begins.data(), MPI_FLOAT,
                       buffers.out(bytes).data(), counts.data(), begins.data(), MPI_FLOAT,
                       MPI_COMM_WORLD);
       }},
  };
}

// Microseconds of one call, on the slowest rank.
double Time(Communicator& world, const std::function<void(int64_t)>& call, int64_t bytes,
            int repeats) {
  world.Barrier().Wait();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) call(bytes);
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  double slowest = took.count() / repeats;
  world.AllReduceMax(std::span(&slowest, 1)).Wait();
  return slowest;
}

struct Times {
  std::vector<double> all;
  double best() const { return *std::ranges::min_element(all); }
  double median() {
    std::ranges::sort(all);
    return all[all.size() / 2];
  }
};

// Many short rounds: some are disturbed by nothing, whatever else the machine does.
constexpr int kRounds = 41;

void Measure(Communicator& world, const std::string& only) {
  Buffers buffers(kSizes[std::size(kSizes) - 1]);
  if (world.rank() == 0) {
    std::printf(
        "us, best (median); %d ranks\n| | bytes of a rank | ours | Open MPI | ratio |\n"
        "| --- | --- | --- | --- | --- |\n",
        world.size());
  }
  for (const Contest& contest : Contests(world, buffers)) {
    if (!only.empty() && only != contest.name) continue;
    for (const int64_t bytes : kSizes) {
      const int repeats = static_cast<int>(std::clamp<int64_t>(kMiB / bytes, 1, 50));
      Times ours, theirs;
      for (int round = 0; round < kRounds; ++round) {
        ours.all.push_back(Time(world, contest.ours, bytes, repeats));
        theirs.all.push_back(Time(world, contest.theirs, bytes, repeats));
      }
      if (world.rank() > 0) continue;
      std::printf("| %s | %lld KiB | %.1f (%.1f) | %.1f (%.1f) | %.2f |\n", contest.name,
                  static_cast<long long>(bytes / kKiB), ours.best(), ours.median(), theirs.best(),
                  theirs.median(), theirs.best() / ours.best());
      std::fflush(stdout);
    }
  }
}

int Main(const std::string& only) {
  if (NumMpiProcesses() < 2) {
    std::fprintf(stderr, "collectives: start it with mpirun -np 2 or more\n");
    return 2;
  }
  const auto board = std::filesystem::temp_directory_path() / "collectives_board";
  const auto world = MpiWorld::Start({.wait = {}, .board_directory = board.string()});
  CHECK(world.ok()) << world.status();
  Measure((*world)->communicator(), only);
  return 0;
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) { return moebius::Main(argc > 1 ? argv[1] : ""); }
