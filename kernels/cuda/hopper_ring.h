// How tiles come to the tensor cores of Hopper: one warpgroup copies them into a ring of stages in
// shared memory, swizzled as Wgmma reads them; two warpgroups multiply what is there.
#pragma once

#include "kernels/cuda/hopper.h"

namespace moebius::cuda {

inline constexpr int kConsumers = 2;  // warpgroups that multiply: the first ones of a block
inline constexpr int kHopperRows = kConsumers * 64;  // of a tile that they share
inline constexpr int kHopperThreads = (kConsumers + 1) * kWarpgroup;
// For DropRegisters and RaiseRegisters: of the 168 that each thread begins with.
inline constexpr int kCopyRegisters = 40, kMultiplyRegisters = 232;
inline constexpr int kInstructionDepth = 16;                // of Wgmma
inline constexpr int kChunkBytes = 64 * kLineBytes;         // 64 lines
inline constexpr int kMaxSharedBytes = (227 << 10) - 1024;  // dynamic; 1024 for the barriers

__device__ __forceinline__ int WarpgroupIndex() {
  return __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
}

// Dynamic shared memory from its first atom on. It may begin anywhere: a block asks for
// kAlignmentBytes more.
inline constexpr int kAlignmentBytes = kAtomBytes;
__device__ __forceinline__ unsigned char* SharedAtoms() {
  auto* const space = static_cast<unsigned char*>(DynamicShared());
  return space + (-SharedAddress(space) & (kAlignmentBytes - 1));
}

// A stage is handed over when the kUnderWay_ behind it are on their way.
template <int kStages_, int kStageBytes_, int kUnderWay_ = 2>
struct Ring {
  static constexpr int kStages = kStages_, kStageBytes = kStageBytes_, kUnderWay = kUnderWay_;
  static constexpr int kBytes = kStages * kStageBytes;
  static_assert(kUnderWay < kStages - 1 && kStageBytes % kAtomBytes == 0);

  uint64_t full[kStages], empty[kStages];  // barriers

  // By one thread; the others wait for it before they come.
  __device__ void Open() {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(&full[i], kWarpgroup / kWarp);
      InitBarrier(&empty[i], kConsumers * kWarpgroup / kWarp);
    }
  }
};

// Where a warpgroup stands in the ring.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Advance() {
    if (++stage < kStages) return;
    stage = 0, parity ^= 1;
  }
};

// Of the copying warpgroup.
template <class Stages>
class RingWriter {
 public:
  __device__ RingWriter(Stages& ring, unsigned char* stages) : ring_(ring), stages_(stages) {}

  // Calls fill(stage) to begin the copies of the next stage.
  template <class Fill>
  __device__ __forceinline__ void Next(const Fill& fill) {
    Wait(&ring_.empty[copied_.stage], copied_.parity ^ 1);
    fill(stages_ + copied_.stage * Stages::kStageBytes);
    CommitCopies();
    copied_.Advance();
    if (under_way_ < Stages::kUnderWay) {
      ++under_way_;
      return;
    }
    WaitCopies<Stages::kUnderWay>();
    HandOver();
  }

  // All that has been copied.
  __device__ __forceinline__ void Finish() {
    WaitCopies<0>();
    for (; under_way_ > 0; --under_way_) HandOver();
  }

 private:
  __device__ __forceinline__ void HandOver() {
    FenceAsyncProxy();
    __syncwarp();
    if (LaneIndex() == 0) Arrive(&ring_.full[handed_over_.stage]);
    handed_over_.Advance();
  }

  Stages& ring_;
  unsigned char* const stages_;
  RingPlace<Stages::kStages> copied_, handed_over_;
  int under_way_ = 0;
};

// Of a multiplying warpgroup.
template <class Stages>
class RingReader {
 public:
  __device__ RingReader(Stages& ring, const unsigned char* stages) : ring_(ring), stages_(stages) {}

  // The next stage, when it is there.
  __device__ __forceinline__ const unsigned char* Next() {
    Wait(&ring_.full[begun_.stage], begun_.parity);
    const unsigned char* const stage = stages_ + begun_.stage * Stages::kStageBytes;
    begun_.Advance();
    return stage;
  }
  // Gives back the oldest stage: products that read it are done.
  __device__ __forceinline__ void Release() {
    if (LaneIndex() == 0) Arrive(&ring_.empty[done_.stage]);
    done_.Advance();
  }

 private:
  Stages& ring_;
  const unsigned char* const stages_;
  RingPlace<Stages::kStages> begun_, done_;
};

// A copying thread brings one cell of lines CopyLine(), CopyLine() + 16, ...
inline constexpr int kCells = kLineBytes / kCellBytes, kNumbersOfCell = kCellBytes / 2;
inline constexpr int kLinesAtOnce = kWarpgroup / kCells;
__device__ __forceinline__ int CopyCell() { return static_cast<int>(threadIdx.x) % kCells; }
__device__ __forceinline__ int CopyLine() {
  return static_cast<int>(threadIdx.x) % kWarpgroup / kCells;
}
// Of the cell of line CopyLine() + kLinesAtOnce * i.
__device__ __forceinline__ int CopyPlace(int i) {
  return (CopyLine() + kLinesAtOnce * i) * kLineBytes +
         SwizzledCell(CopyLine(), CopyCell()) * kCellBytes;
}

}  // namespace moebius::cuda
