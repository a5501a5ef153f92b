#include "parallel/message_reduction.h"

#include <algorithm>

namespace moebius {
namespace {

// A part comes in about eight pieces, so that adding up begins early. What has come of one, from
// all other ranks together, should stay in the second-level cache; but among many ranks messages
// must not get too short. Measured: docs/performance.md, "Two ranks".
constexpr int64_t kPiecesOfPart = 8;
constexpr int64_t kMinBytes = 32 << 10, kMaxBytesOfAll = 512 << 10, kMaxBytesOfMany = 64 << 10;

// Elements of a piece: the same on all ranks.
int64_t PieceCount(const Elements& values, int size) {
  const int64_t part_bytes = values.count * SizeOf(values.dtype) / size;
  const int64_t max_bytes = std::max(kMaxBytesOfAll / std::max(size - 1, 1), kMaxBytesOfMany);
  return std::clamp(part_bytes / kPiecesOfPart, kMinBytes, max_bytes) / SizeOf(values.dtype);
}

// Pieces that are on their way at once.
constexpr int kAhead = 2;

}  // namespace

MessageReduction::MessageReduction(const MessageGroup& group, Kind kind, Reduction reduction,
                                   Elements values, Elements sum)
    : rank_(group.rank),
      size_(group.size()),
      kind_(kind),
      reduction_(reduction),
      values_(values),
      own_(Part(rank_)),
      sum_(kind == Kind::kScatter ? sum : own_),
      piece_count_(kind == Kind::kAllAtOnce ? values.count : PieceCount(values, size_)) {}

void MessageReduction::RunStage(MessageOperation& operation, int stage) const {
  if (stage == 0) {
    const int64_t slots = std::min(kAhead, NumPieces(own_));
    operation.MakeScratch(slots * (size_ - 1) * slot_bytes());
    for (int k = 0; k < kAhead; ++k) ReceivePiece(operation, k);
    SendParts(operation);
  } else if (stage <= last_piece_stage()) {
    AddUpPiece(operation, stage - 1);
    ReceivePiece(operation, stage - 1 + kAhead);
    if (kind_ == Kind::kAll) SendSum(operation, stage - 1);
  } else {
    ReceiveSums(operation);
  }
}

// The nearly equal pieces of the ranks; equal ones if they divide.
Elements MessageReduction::Part(int rank) const {
  if (kind_ == Kind::kAllAtOnce) return values_;
  return values_.Slice(values_.count * rank / size_, values_.count * (rank + 1) / size_);
}

int MessageReduction::NumPieces(const Elements& part) const {
  return part.count == 0 ? 0 : static_cast<int>((part.count - 1) / piece_count_ + 1);
}

Elements MessageReduction::Piece(const Elements& part, int k) const {
  return part.Slice(k * piece_count_, std::min((k + 1) * piece_count_, part.count));
}

// Where the values of another rank for piece k come to.
Elements MessageReduction::Arrived(const MessageOperation& operation, int k, int rank) const {
  const int64_t place = (k % kAhead) * (size_ - 1) + rank - (rank > rank_ ? 1 : 0);
  return {operation.scratch() + place * slot_bytes(), Piece(own_, k).count, values_.dtype};
}

// All at once overwrites what it sends, kAll does so with the sums that it receives.
void MessageReduction::SendParts(MessageOperation& operation) const {
  const int before = kind_ == Kind::kAllAtOnce ? 1 : last_piece_stage() + 1;
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    const Elements part = Part(r);
    for (int k = 0; k < NumPieces(part); ++k) {
      operation.Send(r, {.elements = Piece(part, k), .before = before});
    }
  }
}

void MessageReduction::ReceivePiece(MessageOperation& operation, int k) const {
  if (k >= NumPieces(own_)) return;
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    operation.Receive(r, {.elements = Arrived(operation, k, r), .before = k + 1});
  }
}

void MessageReduction::AddUpPiece(MessageOperation& operation, int k) const {
  const Elements own = Piece(own_, k), sum = Piece(sum_, k);
  std::vector<const std::byte*> parts;
  parts.reserve(size_);
  for (int r = 0; r < size_; ++r) {
    parts.push_back((r == rank_ ? own : Arrived(operation, k, r)).data);
  }
  ReduceInRankOrder(reduction_, own.dtype, parts, own.count, sum.dtype, sum.data);
}

void MessageReduction::SendSum(MessageOperation& operation, int k) const {
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    operation.Send(r, {.elements = Piece(own_, k), .round = 1, .before = operation.num_stages()});
  }
}

void MessageReduction::ReceiveSums(MessageOperation& operation) const {
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    const Elements part = Part(r);
    for (int k = 0; k < NumPieces(part); ++k) {
      operation.Receive(r,
                        {.elements = Piece(part, k), .round = 1, .before = operation.num_stages()});
    }
  }
}

}  // namespace moebius
