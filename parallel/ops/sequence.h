// Sequences that are cut over the ranks of a group, brought together and cut again: the exchanges
// of context parallelism (keys and values of whole sequences, queries of a rank's own positions)
// and of sequence parallelism (Korthikanti et al., 2022, arXiv 2205.05198). The backward of each
// direction is the other.
//
// Letters: B sequences, S positions of each, of which s = S / ranks are this rank's; W row width.
#pragma once

#include <vector>

#include "core/tape/tape.h"
#include "parallel/communicator.h"

namespace moebius {

// Each sequence is cut into ranks * chunks_per_rank equal chunks. Rank r holds, in this order,
//   of 1 chunk a rank: chunk r;
//   of 2 chunks a rank: chunks r and 2 * ranks - 1 - r, so that causal attention costs every rank
//   the same ("zig-zag").
// Local rows stand sequence after sequence, and in each chunk after chunk.
// Where it does not matter which sequence a token belongs to, all tokens may be called one
// sequence: with 1 chunk a rank no row is then copied into another order.
struct SequenceCut {
  int64_t num_sequences = 0;  // B, the same on all ranks
  int num_ranks = 1;
  int chunks_per_rank = 1;  // 1 or 2
};

// Consecutive positions of a sequence.
struct SequenceChunk {
  int64_t begin = 0, length = 0;
  bool operator==(const SequenceChunk&) const = default;
};

// What `rank` holds of each sequence. REQUIRES: sequence_length is a multiple of the number of
// chunks.
std::vector<SequenceChunk> SequenceChunks(const SequenceCut& cut, int64_t sequence_length,
                                          int rank);

// x [B * s, W], the local rows -> [B * S, W] in the order of the sequences, on every rank. Its
// gradient is the sum of all ranks' gradients, in rank order (BF16: see communicator.h).
//
// Both ops: F64, F32, BF16. Collective, and equally large on all ranks; no sequences and no
// positions are ordinary. The communicator has cut.num_ranks ranks and outlives the tape. Free when
// it has one rank: `x` itself. On kMeta shapes alone, without the other ranks.
Var GatherSequence(Tape& tape, const Var& x, const SequenceCut& cut, Communicator* communicator);

// x [B * S, W], this rank's part of a sum over the ranks -> the local rows [B * s, W] of the sum,
// added up in rank order. Its gradient is gathered.
Var ScatterSequence(Tape& tape, const Var& x, const SequenceCut& cut, Communicator* communicator);

}  // namespace moebius
