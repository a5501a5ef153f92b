#include "optim/moments.h"

#include <algorithm>

#include "core/tensor/copy.h"

namespace moebius {
namespace {

constexpr int64_t kAlignment = 64;  // bytes

}  // namespace

Moments::Moments(const GradientBuckets& gradients, const Options& options, Context& context)
    : context_(context),
      come_in_pieces_(options.tier == MemoryTier::kHost && !context.reads_host_tier()) {
  for (size_t b = 0; b < gradients.buckets().size(); ++b) {
    const DType dtype = gradients.buckets()[b].dtype;
    const Shape shape = {gradients.own_size(b)};
    m_.push_back(context.Zeros(dtype, shape, "optimizer.m", options.tier));
    v_.push_back(context.Zeros(dtype, shape, "optimizer.v", options.tier));
    half_bytes_ = std::max(half_bytes_, m_.back().bytes());
  }
  const int64_t most = std::max(options.piece_bytes / 2 / kAlignment, int64_t{1}) * kAlignment;
  half_bytes_ = std::min(half_bytes_, most);
  if (!come_in_pieces_) return;
  size_t num_pieces = 0;
  for (const Tensor& m : m_) num_pieces += (m.bytes() + half_bytes_ - 1) / half_bytes_;
  slots_.resize(std::min<size_t>(num_pieces, 3));
  if (context.accelerator() == nullptr) return;
  upload_ = context.accelerator()->MakeSideStream();
  download_ = context.accelerator()->MakeSideStream();
}

Moments::~Moments() {
  if (use_side_streams()) context_.Wait();
}

void Moments::BeginUpdate() {
  if (!come_in_pieces_) return;
  for (Slot& slot : slots_) {
    slot.memory = context_.arena().Allocate(2 * half_bytes_, "optimizer.pieces");
  }
  if (!use_side_streams()) return;
  upload_->Follow(*context_.accelerator()->Mark());  // what had this memory before is done with it
}

void Moments::Update(size_t b, const std::function<void(const Piece& piece)>& update) {
  const int64_t size = m_[b].size();
  if (!come_in_pieces_) return update({0, size, m_[b], v_[b]});
  for (int64_t begin = 0; begin < size;) {
    Slot& slot = slots_[next_slot_];
    next_slot_ = (next_slot_ + 1) % slots_.size();
    const Piece piece = Bring(b, begin, slot);
    update(piece);
    TakeBack(b, piece, slot);
    begin = piece.end;
  }
}

Moments::Piece Moments::Bring(size_t b, int64_t begin, Slot& slot) {
  const DType dtype = m_[b].dtype();
  const int64_t end = std::min(begin + half_bytes_ / SizeOf(dtype), m_[b].size());
  const Shape shape = {end - begin};
  const Piece piece = {.begin = begin,
                       .end = end,
                       .m = Tensor(dtype, shape, slot.memory),
                       .v = Tensor(dtype, shape, slot.memory, half_bytes_)};
  const OpScope op = context_.Start({.op = "adamw.moments",
                                     .kind = Work::Kind::kTransfer,
                                     .bytes = piece.m.bytes() + piece.v.bytes()});
  if (op.is_dry()) return piece;
  if (slot.is_free != nullptr) upload_->Follow(*slot.is_free);
  Copy(m_[b].Slice(begin, end), piece.m, *upload_);
  Copy(v_[b].Slice(begin, end), piece.v, *upload_);
  upload_->Mark()->HoldBackAccelerator();  // the update begins when it has come
  return piece;
}

void Moments::TakeBack(size_t b, const Piece& piece, Slot& slot) {
  if (!use_side_streams()) return;
  download_->Follow(*context_.accelerator()->Mark());  // it goes when it is updated
  Copy(piece.m, m_[b].Slice(piece.begin, piece.end), *download_);
  Copy(piece.v, v_[b].Slice(piece.begin, piece.end), *download_);
  slot.is_free = download_->Mark();
}

void Moments::EndUpdate() {
  if (!come_in_pieces_) return;
  // Further work, which may get this memory, and whoever waits for it: all come behind the copies.
  if (use_side_streams()) download_->Mark()->HoldBackAccelerator();
  for (Slot& slot : slots_) slot = Slot();
}

}  // namespace moebius
