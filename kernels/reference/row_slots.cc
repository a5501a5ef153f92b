#include "kernels/row_slots.h"

#include <algorithm>

#include "kernels/reference/reference.h"

namespace moebius::reference {
namespace {

// The blocks that ranks exchange, on the host.
class RowBlocks {
 public:
  explicit RowBlocks(const kernels::RowSlotsArgs& args)
      : args_(args),
        first_experts_(args.first_experts.data<int32_t>()),
        num_owners_(args.first_experts.size() - 1),
        capacity_(static_cast<int32_t>(args.received.shape()[1])) {}

  // Returns whether all rows have one.
  bool PlaceSent() const {
    int32_t* const sent = args_.sent.data<int32_t>();
    const int32_t* const offsets = OffsetsOf(args_.rank);
    CHECK_EQ(offsets[first_experts_[num_owners_]], args_.sent.size()) << "rows of no expert";
    bool all = true;
    for (int64_t o = 0; o < num_owners_; ++o) {
      const int32_t begin = offsets[first_experts_[o]], end = offsets[first_experts_[o + 1]];
      const auto block = static_cast<int32_t>(o * args_.copies * capacity_);
      for (int32_t row = begin; row < end; ++row) {
        sent[row] = row - begin < capacity_ ? block + row - begin : -1;
      }
      all &= end - begin <= capacity_;
    }
    return all;
  }

  void PlaceReceived() const {
    std::ranges::fill(args_.received.span<int32_t>(), -1);
    int32_t* const local_offsets = args_.local_offsets.data<int32_t>();
    const int64_t num_ranks = args_.received.shape()[0];
    int32_t row = 0;
    for (int64_t j = 0; j + 1 < args_.local_offsets.size(); ++j) {
      local_offsets[j] = row;
      for (int64_t r = 0; r < num_ranks; ++r) {
        int32_t* const block = args_.received.data<int32_t>() + r * capacity_;
        for (int32_t slot = SlotOf(r, j); slot < SlotOf(r, j + 1); ++slot) block[slot] = row++;
      }
    }
    local_offsets[args_.local_offsets.size() - 1] = row;
  }

 private:
  const int32_t* OffsetsOf(int64_t rank) const {
    return args_.expert_offsets.data<int32_t>() + rank * args_.expert_offsets.shape()[1];
  }
  // Where the rows for local expert j begin in what rank r sends here.
  int32_t SlotOf(int64_t r, int64_t j) const {
    const int32_t* const own = OffsetsOf(r) + first_experts_[args_.rank / args_.copies];
    return std::min(own[j] - own[0], capacity_);
  }

  const kernels::RowSlotsArgs& args_;
  const int32_t* const first_experts_;
  const int64_t num_owners_;
  const int32_t capacity_;
};

}  // namespace

void RowSlots(const kernels::RowSlotsArgs& args, Context&) {
  const RowBlocks blocks(args);
  blocks.PlaceReceived();
  if (!blocks.PlaceSent()) args.overflow.data<double>()[0] = 1;
}

void ScatterRows(const kernels::ScatterRowsArgs& args, Context& ctx) {
  const auto [rows, D] = Dims<2>(args.x);
  ctx.pool().For(rows, [&, D = D](int64_t i) {
    const int64_t at = args.at.data<int32_t>()[i];
    for (int64_t c = 0; c < args.copies && at >= 0; ++c) {
      std::copy_n(args.x.data<double>() + i * D, D,
                  args.y.data<double>() + (at + c * args.step) * D);
    }
  });
}

void GatherRows(const kernels::GatherRowsArgs& args, Context& ctx) {
  const auto [rows, D] = Dims<2>(args.y);
  ctx.pool().For(rows, [&, D = D](int64_t i) {
    const int64_t at = args.at.data<int32_t>()[i];
    double* const y = args.y.data<double>() + i * D;
    for (int64_t c = 0; c < args.copies && at >= 0; ++c) {
      const double* const x = args.x.data<double>() + (at + c * args.step) * D;
      for (int64_t d = 0; d < D; ++d) y[d] = c == 0 ? x[d] : y[d] + x[d];
    }
  });
}

}  // namespace moebius::reference
