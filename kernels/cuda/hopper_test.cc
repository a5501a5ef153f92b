// The played instructions of Hopper: what they compute, and what they refuse.
#include "kernels/cuda/hopper.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace moebius::cuda {
namespace {

constexpr int kColumns = 128, kDepth = 64, kChunk = 64 * kLineBytes;
constexpr int kSharedBytes = (64 + kColumns) * kLineBytes + kAtomBytes;

// Small integers: sums are exact in any order.
float ValueOfA(int row, int k) { return static_cast<float>((row * 5 + k * 3) % 11 - 5); }
float ValueOfB(int column, int k) { return static_cast<float>((column * 7 + k * 2) % 13 - 6); }

// Copies an operand's `lines` of 64 numbers, of which number (line, i) is value(line, i).
template <class Value>
void CopyLines(unsigned char* to, int lines, const Value& value) {
  alignas(16) BF16 cell[8];
  for (int line = static_cast<int>(threadIdx.x); line < lines; line += kWarpgroup) {
    for (int c = 0; c < 8; ++c) {
      for (int i = 0; i < 8; ++i) cell[i] = BF16(value(line, c * 8 + i));
      CopyAsync(to + line * kLineBytes + SwizzledCell(line, c) * kCellBytes, cell, true);
    }
  }
}

unsigned char* Stage() {
  auto* const space = static_cast<unsigned char*>(DynamicShared());
  return space + (-SharedAddress(space) & (kAtomBytes - 1));
}

// What a product is made of, one of which may be left out.
enum class Step { kNone, kCopy, kWaitForCopies, kAsyncFence, kRegisterFence, kWaitForProducts };

template <bool kTransposedA, bool kTransposedB>
void Copy(unsigned char* a, unsigned char* b) {
  // Transposed, line l of a chunk of 64 rows or columns is depth l.
  CopyLines(a, 64,
            [](int line, int i) { return kTransposedA ? ValueOfA(i, line) : ValueOfA(line, i); });
  CopyLines(b, kColumns, [](int line, int i) {
    return kTransposedB ? ValueOfB(line / 64 * 64 + i, line % 64) : ValueOfB(line, i);
  });
  CommitCopies();
}

// [64, kColumns] of a 64 deep product of one warpgroup.
template <bool kTransposedA, bool kTransposedB>
std::vector<float> Multiply(Step without) {
  std::vector<float> d(64 * kColumns);
  cuda_emulation::Run(1, kWarpgroup, kSharedBytes, [&] {
    unsigned char *const a = Stage(), *const b = a + kChunk;
    float sums[kColumns / 2] = {};
    if (without != Step::kCopy) Copy<kTransposedA, kTransposedB>(a, b);
    if (without != Step::kWaitForCopies) WaitCopies<0>();
    if (without != Step::kAsyncFence) FenceAsyncProxy();
    __syncthreads();
    if (without != Step::kRegisterFence) WgmmaFence();
    for (int k = 0; k < kDepth; k += 16) {
      Wgmma<kTransposedA, kTransposedB>(
          sums, Further(MatrixDescriptor(a, kChunk), k * (kTransposedA ? kLineBytes : 2)),
          Further(MatrixDescriptor(b, kChunk), k * (kTransposedB ? kLineBytes : 2)));
    }
    EXPECT_TRUE(std::isnan(sums[0])) << "a sum can be read before it is waited for";
    WgmmaCommit();
    if (without != Step::kWaitForProducts) WgmmaWait<0>();
    for (int i = 0; i < kColumns / 2; ++i) {
      d[AccumulatorRow(i) * kColumns + AccumulatorColumn(i)] = sums[i];
    }
  });
  return d;
}

void ExpectProduct(const std::vector<float>& d, int columns = kColumns) {
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < columns; ++column) {
      float sum = 0;
      for (int k = 0; k < kDepth; ++k) sum += ValueOfA(row, k) * ValueOfB(column, k);
      ASSERT_EQ(d[row * columns + column], sum) << row << ", " << column;
    }
  }
}

TEST(Wgmma, MultipliesOperandsOfAnyMajorness) {
  ExpectProduct(Multiply<false, false>(Step::kNone));
  ExpectProduct(Multiply<false, true>(Step::kNone));
  ExpectProduct(Multiply<true, false>(Step::kNone));
  ExpectProduct(Multiply<true, true>(Step::kNone));
}

// What stands in registers: [64, kDepth] as Wgmma reads it, from sums laid out as it leaves them.
template <int kColumns>
void ExpectProductOfRegisters() {
  std::vector<float> d(64 * kColumns);
  cuda_emulation::Run(1, kWarpgroup, (64 + 128) * kLineBytes + kAtomBytes, [&] {
    unsigned char* const b = Stage();
    CopyLines(b, kColumns, [](int line, int i) { return ValueOfB(line, i); });
    CommitCopies();
    WaitCopies<0>();
    FenceAsyncProxy();
    __syncthreads();
    float a[kDepth / 2], sums[kColumns / 2] = {};
    for (int i = 0; i < kDepth / 2; ++i) a[i] = ValueOfA(AccumulatorRow(i), AccumulatorColumn(i));
    uint32_t operands[kDepth / 16][4];
    for (int k = 0; k < kDepth / 16; ++k) PackOperand(a, k, operands[k]);
    WgmmaFence();
    for (int k = 0; k < kDepth / 16; ++k) {
      Wgmma<false>(sums, operands[k], Further(MatrixDescriptor(b, kChunk), k * 32));
    }
    WgmmaCommit();
    WgmmaWait<0>();
    for (int i = 0; i < kColumns / 2; ++i) {
      d[AccumulatorRow(i) * kColumns + AccumulatorColumn(i)] = sums[i];
    }
  });
  ExpectProduct(d, kColumns);
}

TEST(Wgmma, MultipliesAnOperandInRegisters) {
  ExpectProductOfRegisters<64>();
  ExpectProductOfRegisters<128>();
}

TEST(Wgmma, AddsToWhatIsThereUnlessToldNotTo) {
  cuda_emulation::Run(1, kWarpgroup, kSharedBytes, [] {
    unsigned char *const a = Stage(), *const b = a + kChunk;
    Copy<false, false>(a, b);
    WaitCopies<0>();
    FenceAsyncProxy();
    __syncthreads();
    float sums[2][kColumns / 2];
    for (auto& of_half : sums) std::fill_n(of_half, kColumns / 2, 1000.0f);
    WgmmaFence();
    for (int i = 0; i < 2; ++i) {
      Wgmma<false, false>(sums[i], MatrixDescriptor(a, kChunk), MatrixDescriptor(b, kChunk),
                          i == 1);
    }
    WgmmaCommit();
    WgmmaWait<0>();
    for (int i = 0; i < kColumns / 2; ++i) EXPECT_EQ(sums[0][i] + 1000, sums[1][i]);
  });
}

// Bits of the PTX ISA: start address, leading and stride byte offset in 16 bytes, swizzle.
TEST(MatrixDescriptor, HasTheBitsOfTheIsa) {
  cuda_emulation::Run(1, 1, 4 * kAtomBytes, [] {
    const unsigned char* const stage = Stage();
    const uint64_t descriptor = MatrixDescriptor(stage, 8192), begin = SharedAddress(stage);
    EXPECT_EQ(begin % kAtomBytes, 0u);
    EXPECT_EQ(descriptor,
              uint64_t{1} << 62 | uint64_t{64} << 32 | uint64_t{512} << 16 | begin / 16);
    EXPECT_EQ(Further(descriptor, 32) & 0x3FFF, begin / 16 + 2);
  });
}

TEST(WgmmaDeathTest, RefusesWhatTheIsaLeavesUndefined) {
  const auto without = [](Step step) { return [step] { Multiply<false, false>(step); }; };
  EXPECT_DEATH(without(Step::kCopy)(), "nobody wrote");
  EXPECT_DEATH(without(Step::kWaitForCopies)(), "has not brought yet");
  EXPECT_DEATH(without(Step::kAsyncFence)(), "no fence has shown");
  EXPECT_DEATH(without(Step::kRegisterFence)(), "without wgmma.fence");
  EXPECT_DEATH(without(Step::kWaitForProducts)(), "products in flight");
}

TEST(WgmmaDeathTest, RefusesToOverwriteAnOperandInUse) {
  const auto run = [] {
    cuda_emulation::Run(1, kWarpgroup, kSharedBytes, [] {
      unsigned char *const a = Stage(), *const b = a + kChunk;
      float sums[kColumns / 2] = {};
      Copy<false, false>(a, b);
      WaitCopies<0>();
      FenceAsyncProxy();
      __syncthreads();
      WgmmaFence();
      Wgmma<false, false>(sums, MatrixDescriptor(a, kChunk), MatrixDescriptor(b, kChunk));
      WgmmaCommit();
      Copy<false, false>(a, b);
      WgmmaWait<0>();
    });
  };
  EXPECT_DEATH(run(), "may still read");
}

TEST(WgmmaDeathTest, RefusesToOverwriteRegistersInUse) {
  const auto run = [] {
    cuda_emulation::Run(1, kWarpgroup, kSharedBytes, [] {
      unsigned char *const a = Stage(), *const b = a + kChunk;
      float sums[kColumns / 2] = {};
      uint32_t operand[4] = {};
      Copy<false, false>(a, b);
      WaitCopies<0>();
      FenceAsyncProxy();
      __syncthreads();
      WgmmaFence();
      Wgmma<false>(sums, operand, MatrixDescriptor(b, kChunk));
      WgmmaCommit();
      operand[2] = 1;
      WgmmaWait<0>();
    });
  };
  EXPECT_DEATH(run(), "changed before");
}

TEST(Barrier, CompletesPhasesInTurn) {
  std::vector<int> order;
  cuda_emulation::Run(1, 2 * kWarp, 0, [&] {
    __shared__ uint64_t full, empty;
    if (threadIdx.x == 0) InitBarrier(&full, kWarp), InitBarrier(&empty, kWarp);
    __syncthreads();
    const bool produces = threadIdx.x >= kWarp;
    for (int i = 0; i < 3; ++i) {
      Wait(produces ? &empty : &full, (i & 1) ^ (produces ? 1 : 0));
      if (threadIdx.x % kWarp == 0) order.push_back(produces ? i : 10 + i);
      Arrive(produces ? &full : &empty);
    }
  });
  EXPECT_EQ(order, (std::vector<int>{0, 10, 1, 11, 2, 12}));
}

TEST(BarrierDeathTest, EndsWhereNobodyArrives) {
  const auto run = [] {
    cuda_emulation::Run(1, kWarp, 0, [] {
      __shared__ uint64_t barrier;
      if (threadIdx.x == 0) InitBarrier(&barrier, kWarp + 1);
      __syncthreads();
      Arrive(&barrier);
      Wait(&barrier, 0);
    });
  };
  EXPECT_DEATH(run(), "is not at the barrier");
}

}  // namespace
}  // namespace moebius::cuda
