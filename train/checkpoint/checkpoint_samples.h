// A small model's worth of tensors for the tests of checkpoints, in any layout, and ranks as
// threads.
#pragma once

#include <algorithm>
#include <barrier>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "train/checkpoint/checkpoint.h"

namespace moebius {

// An empty folder of the test's own.
inline std::string FreshFolder(const std::string& name) {
  const std::string folder = ::testing::TempDir() + "/" + name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

class ThreadRanks {
 public:
  explicit ThreadRanks(int size) : values_(size), barrier_(size) {}

  void Run(const std::function<void(const RankAgreement&)>& body) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < values_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        body({static_cast<int>(rank), static_cast<int>(values_.size()),
              [this, rank](int64_t value) { return Max(rank, value); }});
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  int64_t Max(size_t rank, int64_t value) {
    values_[rank] = value;
    barrier_.arrive_and_wait();
    const int64_t max = *std::ranges::max_element(values_);
    barrier_.arrive_and_wait();
    return max;
  }

  std::vector<int64_t> values_;
  std::barrier<> barrier_;
};

struct Sample {
  const char* name;
  DType dtype;
  Placement placement;
};

// Experts scattered over the ranks, a matrix cut by columns, and what every rank holds whole.
inline std::vector<Sample> Samples(int world_size) {
  std::vector<int> scattered;
  for (int expert = 0; expert < 8; ++expert) scattered.push_back((expert / 2 * 3) % world_size);
  const std::vector<Replication> by_all = {{Axis::kData, GradientArrives::kPartial}};
  return {
      {"adamw.m/experts", DType::kF32, {{8, 3, 2}, {{0, Axis::kExpert, scattered}}, {}}},
      {"bias", DType::kF64, {{8}, {}, by_all}},
      {"columns", DType::kF32, {{5, 12}, {{1, Axis::kTensor, EvenOwners(12, world_size)}}, {}}},
      {"counts", DType::kI64, {{2, 2, 3}, {}, by_all}},
      {"experts", DType::kBF16, {{8, 3, 2}, {{0, Axis::kExpert, scattered}}, {}}},
      {"none", DType::kF32, {{0, 4}, {}, by_all}},
      {"scalar", DType::kF32, {{}, {}, by_all}},
  };
}

inline MeshPosition PositionOf(int rank, int world_size) {
  MeshPosition at;
  for (const Axis axis : {Axis::kData, Axis::kTensor, Axis::kExpert}) {
    at.index[static_cast<int>(axis)] = rank;
    at.size[static_cast<int>(axis)] = world_size;
  }
  return at;
}

// A byte that depends on the element's place in the global tensor alone.
inline std::byte SampleByte(const Shape& global, std::span<const int64_t> at, int64_t byte,
                            int64_t seed) {
  int64_t flat = 0;
  for (size_t d = 0; d < at.size(); ++d) flat = flat * global[static_cast<int>(d)] + at[d];
  return static_cast<std::byte>((flat * 37 + byte * 11 + seed * 101 + global.rank()) & 0xff);
}

// Calls visit(byte of `local`, what it should be) for each byte of a rank's share.
inline void VisitSample(const CheckpointTensor& tensor, int64_t seed,
                        const std::function<void(std::byte&, std::byte)>& visit) {
  const int64_t element = SizeOf(tensor.local.dtype());
  std::byte* at_byte = tensor.local.raw();
  for (const Piece& piece : tensor.pieces) {
    std::vector<int64_t> at = piece.begin;
    for (bool more = true; more;) {
      for (int64_t b = 0; b < element; ++b) {
        visit(*at_byte++, SampleByte(tensor.global_shape, at, b, seed));
      }
      more = false;
      for (size_t d = at.size(); d-- > 0 && !more;) {
        more = ++at[d] < piece.end[d];
        if (!more) at[d] = piece.begin[d];
      }
    }
  }
}

inline std::vector<CheckpointTensor> EmptySamples(int rank, int world_size, Arena& arena) {
  std::vector<CheckpointTensor> tensors;
  const MeshPosition at = PositionOf(rank, world_size);
  for (const Sample& sample : Samples(world_size)) {
    const Shape shape = sample.placement.LocalShape(at);
    const int64_t bytes = shape.num_elements() * SizeOf(sample.dtype);
    const Tensor local(sample.dtype, shape, arena.Allocate(bytes, sample.name));
    std::fill_n(local.raw(), bytes, std::byte{0xee});
    tensors.push_back(PlacedTensor(sample.name, sample.placement, at, local));
  }
  // A tensor whose elements the ranks share out, whatever its rows.
  const Placement sharded{{3, 5, 2}, {}, {{Axis::kData, GradientArrives::kPartial}}};
  const int64_t begin = 30 * rank / world_size, end = 30 * (rank + 1) / world_size;
  const Tensor part(DType::kF32, {end - begin}, arena.Allocate(4 * (end - begin), "sharded"));
  std::fill_n(part.raw(), part.bytes(), std::byte{0xee});
  tensors.push_back(PartTensor("adamw.v/sharded", sharded, at, begin, end, part, true));
  return tensors;
}

inline CheckpointContent SampleContent(int64_t step, int rank, int world_size, Arena& arena) {
  CheckpointContent content{step, {{"tokens", 1000 * step}}, {{"config.textproto", "a: 1\n"}}, {}};
  content.tensors = EmptySamples(rank, world_size, arena);
  for (const CheckpointTensor& tensor : content.tensors) {
    VisitSample(tensor, step, [](std::byte& here, std::byte value) { here = value; });
  }
  return content;
}

// Whether every byte of the shares is the one of `step`.
inline bool IsSample(const std::vector<CheckpointTensor>& tensors, int64_t step) {
  bool same = true;
  for (const CheckpointTensor& tensor : tensors) {
    VisitSample(tensor, step, [&](std::byte& here, std::byte value) { same &= here == value; });
  }
  return same;
}

}  // namespace moebius
