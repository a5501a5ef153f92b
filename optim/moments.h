// The first and second moment of every element that this rank updates, in a tier of memory, and how
// the kernels that update them reach them.
//
// In the device tier, and where the device reads the host tier (the CPU), they are updated where
// they lie. Else they are in pinned memory of the host, and come to the device for an update and
// go back, piece by piece, each way in a stream of its own beside the device's work:
//
//   upload     | piece 0 | piece 1  | piece 2  | piece 3  | ...
//   work                 | update 0 | update 1 | update 2 | ...
//   download                        | piece 0  | piece 1  | ...
//
// Up to three are on the device at a time, in memory that is taken for the update alone. The same
// kernels update the same elements, so the bits are those of the device tier. An update moves each
// moment over the bus once each way, and takes as long as that does; the host waits for nothing.
// (Ren et al., "ZeRO-Offload", 2021, arXiv 2101.06840, keep them there, too, but update on the
// host: fewer bytes pass the bus, more the host's memory, and the sums are another machine's.)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/tensor/context.h"
#include "parallel/gradient_buckets.h"

namespace moebius {

class Moments {
 public:
  struct Options {
    MemoryTier tier = MemoryTier::kDevice;
    // Of both moments in a piece, at most; but 64 bytes of each.
    int64_t piece_bytes = int64_t{32} << 20;
  };

  // Zero. The context outlives this.
  Moments(const GradientBuckets& gradients, const Options& options, Context& context);
  ~Moments();  // waits for what is on its way

  // [own_size of the bucket], in their tier. The host reads and writes those of the host tier
  // after Context::Wait.
  const Tensor& m(size_t bucket) const { return m_[bucket]; }
  const Tensor& v(size_t bucket) const { return v_[bucket]; }

  // Elements [begin, end) of what this rank owns of a bucket, where kernels compute.
  struct Piece {
    int64_t begin = 0;
    int64_t end = 0;
    Tensor m, v;  // [end - begin]
  };

  // An update: Begin, the buckets one after the other, End. `update` gives the device the work that
  // updates a piece, which is the whole bucket but where pieces come and go (come_in_pieces).
  void BeginUpdate();
  void Update(size_t bucket, const std::function<void(const Piece& piece)>& update);
  void EndUpdate();

  bool come_in_pieces() const { return come_in_pieces_; }
  bool use_side_streams() const { return upload_ != nullptr; }

 private:
  // On the device, for a piece at a time.
  struct Slot {
    std::shared_ptr<Storage> memory;
    std::unique_ptr<DeviceEvent> is_free;  // the piece before has gone back; null: there was none
  };

  Piece Bring(size_t bucket, int64_t begin, Slot& slot);
  void TakeBack(size_t bucket, const Piece& piece, Slot& slot);

  Context& context_;
  const bool come_in_pieces_;
  int64_t half_bytes_ = 0;     // of a slot: those of one moment
  std::vector<Tensor> m_, v_;  // by bucket
  std::vector<Slot> slots_;    // at most one that comes, one at work and one that goes
  size_t next_slot_ = 0;
  std::unique_ptr<SideStream> upload_, download_;  // null on kMeta
};

}  // namespace moebius
