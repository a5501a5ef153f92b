// A reduction over the ranks of a group by messages, piece by piece: what has come of a piece is
// still in the cache when it is added up, and the next piece comes meanwhile.
#pragma once

#include <algorithm>

#include "parallel/message_operation.h"
#include "parallel/ordered_reduction.h"

namespace moebius {

class MessageReduction {
 public:
  enum class Kind {
    kScatter,    // sum = this rank's part of the sum of `values`: the rank-th of size equal parts
    kAll,        // values = the sum of `values`, of which each rank adds up a part
    kAllAtOnce,  // the same; every rank gets all values of all others, in one round
  };

  // `sum`: for kScatter. The others add up in place.
  MessageReduction(const MessageGroup& group, Kind kind, Reduction reduction, Elements values,
                   Elements sum = {});

  int num_stages() const { return last_piece_stage() + 1 + (kind_ == Kind::kAll ? 1 : 0); }
  void RunStage(MessageOperation& operation, int stage) const;

 private:
  int last_piece_stage() const { return NumPieces(own_); }  // stage k + 1 adds up piece k

  // Of the scratch memory that a piece comes to.
  int64_t slot_bytes() const { return std::min(piece_count_, own_.count) * SizeOf(values_.dtype); }

  Elements Part(int rank) const;
  int NumPieces(const Elements& part) const;
  Elements Piece(const Elements& part, int k) const;
  Elements Arrived(const MessageOperation& operation, int k, int rank) const;

  void SendParts(MessageOperation& operation) const;
  void ReceivePiece(MessageOperation& operation, int k) const;
  void AddUpPiece(MessageOperation& operation, int k) const;
  void SendSum(MessageOperation& operation, int k) const;
  void ReceiveSums(MessageOperation& operation) const;

  int rank_, size_;
  Kind kind_;
  Reduction reduction_;
  Elements values_, own_, sum_;
  int64_t piece_count_;  // elements
};

}  // namespace moebius
