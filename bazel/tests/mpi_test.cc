// Ranks are started, find each other and add up their numbers. Exits with 0 on success.

#include <mpi.h>

#include <cstdio>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, num_ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
  const int mine = rank + 1;
  int sum = 0;
  MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  const int expected = num_ranks * (num_ranks + 1) / 2;
  if (num_ranks < 2 || sum != expected) {
    std::fprintf(stderr, "rank %d of %d: sum is %d, not %d\n", rank, num_ranks, sum, expected);
    return 1;
  }
  return 0;
}
