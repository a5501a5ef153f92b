// Pipelined products of tiles on the tensor cores of Hopper, of which linear_hopper.cu is made.
//
// A block computes 128 x kColumns sums at a time, in slices of 64 of the depth. Of its three
// warpgroups the last copies: slices of both operands, gathered and ragged as they are, into a ring
// of stages in shared memory, swizzled as Wgmma reads them. The first two multiply: each has 64
// rows of the tile, its sums in registers.
//
//                        128 x 256, 4 stages     128 x 128, 6 stages
//   a slice: operations  4.2 M, 1024 clocks      2.1 M, 512 clocks     (4096 in a clock of an SM)
//     from L2            48 KB, 48 B a clock     32 KB, 64 B a clock
//     shared memory      48 KB in, 80 KB out     32 KB in, 48 KB out
//                        128 B a clock of 128    160 B a clock: 80% of the tensor cores' rate
//   ring                 192 KB                  192 KB
//   registers            128 sums of 168         64 sums of 168
//
// So the wide tile is the better one wherever there are enough of them. What limits it is shared
// memory, and L2: at 85 operations a byte, 600 TFLOP/s read 7 TB/s. A copy has two slices of time
// to arrive. Sums are written behind a tile, while the next one is copied but nothing is
// multiplied.
#pragma once

#include "kernels/cuda/hopper_ring.h"
#include "kernels/cuda/products.h"

namespace moebius::cuda {

inline constexpr int kHopperDepth = 64;  // of a slice

// Stages: an operand of R rows or columns takes R lines. Not transposed, line r is the slice of row
// r; transposed, every 64 columns have a line for each of the slice's 64 depths.
inline constexpr int kOperandABytes = kHopperRows * kLineBytes;

template <int kColumns>
using SliceRing = Ring<(kColumns == 256 ? 4 : 6), (kHopperRows + kColumns) * kLineBytes>;

// Where rows r, r + kLinesAtOnce, ... stand, or the last one instead of those behind it: read
// together, without branches.
template <int n>
__device__ __forceinline__ void FindRows(const int32_t* rows, int64_t r, int64_t last,
                                         int64_t (&found)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) found[i] = min(r + kLinesAtOnce * i, last);
  if (rows == nullptr) return;
#pragma unroll
  for (int i = 0; i < n; ++i) found[i] = rows[found[i]];
}

// Rows begin .. begin + kRows - 1 of an operand whose depth lies side by side; zeros from `end` on,
// and beyond the depth.
template <int kRows>
class RowSlices {
 public:
  // begin < end.
  __device__ RowSlices(const BF16* x, int64_t stride, const int32_t* rows, int64_t begin,
                       int64_t end, int64_t depth)
      : depth_(static_cast<int>(depth)) {
    int64_t row[kEach];
    FindRows(rows, begin + CopyLine(), end - 1, row);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (begin + CopyLine() + kLinesAtOnce * i < end) inside_ |= 1u << i;
      row_[i] = reinterpret_cast<const char*>(x + row[i] * stride) + CopyCell() * kCellBytes;
    }
  }

  __device__ __forceinline__ void Copy(unsigned char* to, int begin) {
    const bool within = begin + CopyCell() * kNumbersOfCell < depth_;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      CopyAsync(to + CopyPlace(i), row_[i] + begin * 2, within && (inside_ >> i & 1) != 0);
    }
  }

 private:
  static constexpr int kEach = kRows / kLinesAtOnce;
  const char* row_[kEach];
  uint32_t inside_ = 0;
  int depth_;
};

// Columns begin .. begin + kColumns - 1 of an operand whose columns lie side by side, and whose
// depth are `depth` rows from `first` on; zeros from `end` on, and beyond the depth. Slices are
// copied from the first to the last.
template <int kColumns>
class ColumnSlices {
 public:
  __device__ ColumnSlices(const BF16* x, int64_t stride, const int32_t* rows, int64_t first,
                          int64_t depth, int64_t begin, int64_t end)
      : x_(x + begin + CopyCell() * kNumbersOfCell),
        stride_(stride),
        rows_(rows),
        first_(first),
        depth_(static_cast<int>(depth)),
        columns_(static_cast<int>(end - begin) - CopyCell() * kNumbersOfCell) {
    Find(0);
  }

  __device__ __forceinline__ void Copy(unsigned char* to, int begin) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const BF16* const from = x_ + row_[i] * stride_;
      const bool within = begin + CopyLine() + kLinesAtOnce * i < depth_;
#pragma unroll
      for (int chunk = 0; chunk < kColumns / 64; ++chunk) {
        CopyAsync(to + chunk * kChunkBytes + CopyPlace(i), from + chunk * 64,
                  within && chunk * 64 < columns_);
      }
    }
    Find(begin + kHopperDepth);
  }

 private:
  static constexpr int kEach = kHopperDepth / kLinesAtOnce;

  // Rows of a slice, while the slice before is on its way.
  __device__ __forceinline__ void Find(int begin) {
    if (begin < depth_) FindRows(rows_, first_ + begin + CopyLine(), first_ + depth_ - 1, row_);
  }

  const BF16* x_;
  int64_t stride_;
  const int32_t* rows_;
  int64_t first_;
  int depth_, columns_;
  int64_t row_[kEach];
};

// What the copying warpgroup does.
template <int kColumns>
class Producer {
 public:
  using Stages = SliceRing<kColumns>;

  __device__ Producer(Stages& ring, unsigned char* stages) : writer_(ring, stages) {}

  template <class A, class B>
  __device__ __forceinline__ void Copy(A a, B b, int depth) {
    for (int begin = 0; begin < depth; begin += kHopperDepth) {
      writer_.Next([&](unsigned char* stage) {
        a.Copy(stage, begin);
        b.Copy(stage + kOperandABytes, begin);
      });
    }
  }
  __device__ __forceinline__ void Finish() { writer_.Finish(); }

 private:
  RingWriter<Stages> writer_;
};

// What a multiplying warpgroup does.
template <int kColumns, bool kTransposedA, bool kTransposedB>
class Consumer {
 public:
  using Stages = SliceRing<kColumns>;
  using Sums = float[kColumns / 2];

  __device__ Consumer(Stages& ring, const unsigned char* stages, int warpgroup)
      : reader_(ring, stages), warpgroup_(warpgroup) {}

  // One slice is multiplied while the next is begun; then the ring gets its stage back.
  __device__ __forceinline__ void Multiply(int depth, Sums& sums) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) sums[i] = 0;
    for (int begin = 0; begin < depth; begin += kHopperDepth) {
      AddSlice(reader_.Next(), sums);
      WgmmaWait<1>();
      if (begin > 0) reader_.Release();
    }
    WgmmaWait<0>();
    Settle(sums);
    if (depth > 0) reader_.Release();
  }

 private:
  __device__ __forceinline__ void AddSlice(const unsigned char* stage, Sums& sums) {
    const uint64_t a = MatrixDescriptor(stage + warpgroup_ * kChunkBytes, kChunkBytes);
    const uint64_t b = MatrixDescriptor(stage + kOperandABytes, kChunkBytes);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kHopperDepth / kInstructionDepth; ++i) {
      Wgmma<kTransposedA, kTransposedB>(sums, Further(a, i * Step(kTransposedA)),
                                        Further(b, i * Step(kTransposedB)));
    }
    WgmmaCommit();
  }
  // To the next depth of an instruction.
  static constexpr __device__ uint32_t Step(bool transposed) {
    return kInstructionDepth * (transposed ? kLineBytes : 2);
  }

  RingReader<Stages> reader_;
  const int warpgroup_;
};

}  // namespace moebius::cuda
