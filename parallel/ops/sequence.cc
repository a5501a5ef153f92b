#include "parallel/ops/sequence.h"

#include <vector>

#include "core/tensor/copy.h"
#include "kernels/elementwise.h"

namespace moebius {
namespace {

void Check(const SequenceCut& cut) {
  CHECK_GE(cut.num_sequences, 0);
  CHECK_GE(cut.num_ranks, 1);
  CHECK(cut.chunks_per_rank == 1 || cut.chunks_per_rank == 2) << cut.chunks_per_rank;
}

// The i-th chunk of a rank, among those of a sequence.
int ChunkOf(const SequenceCut& cut, int rank, int i) {
  return i == 0 ? rank : 2 * cut.num_ranks - 1 - rank;
}

// Ranks' rows one after the other are sequences already.
bool IsInOrder(const SequenceCut& cut) {
  return cut.num_sequences <= 1 && cut.chunks_per_rank == 1;
}

enum class Direction { kIntoMessages, kOutOfMessages };

// Between rows in the order of the sequences and the local rows of rank 0, rank 1, ...
void MoveChunks(const SequenceCut& cut, Direction direction, const Tensor& rows,
                const Tensor& messages, Context& context) {
  const OpScope op = context.Start(Moves("sequence.chunks", rows, messages));
  if (op.is_dry() || rows.size() == 0) return;
  const int k = cut.chunks_per_rank, chunks = cut.num_ranks * k;
  const int64_t B = cut.num_sequences, bytes = rows.bytes() / (B * chunks);
  const bool into = direction == Direction::kIntoMessages;
  std::vector<CopyPiece> pieces;
  for (int64_t message = 0; message < B * chunks; ++message) {
    const auto rank = static_cast<int>(message / (B * k)), i = static_cast<int>(message % k);
    const int64_t sequence = message / k % B;
    const int64_t in_rows = (sequence * chunks + ChunkOf(cut, rank, i)) * bytes;
    const int64_t in_messages = message * bytes;
    pieces.push_back({into ? in_rows : in_messages, into ? in_messages : in_rows, bytes});
  }
  CopyPieces(into ? rows : messages, into ? messages : rows, pieces, context);
}

// Where messages are made: in the rows themselves, if that is their order.
Tensor MessagesOf(const SequenceCut& cut, const Tensor& rows, Context& context) {
  return IsInOrder(cut) ? rows : context.Empty(rows.dtype(), rows.shape(), "sequence.messages");
}

// rows [B * S, W] = the `local` [B * s, W] of every rank
void Gather(const SequenceCut& cut, const Tensor& local, const Tensor& rows,
            Communicator& communicator, Context& context) {
  const Tensor messages = MessagesOf(cut, rows, context);
  communicator.AllGather(local, messages).Wait();
  if (!IsInOrder(cut)) MoveChunks(cut, Direction::kOutOfMessages, rows, messages, context);
}

// local [B * s, W] = this rank's part of the sum of `rows` [B * S, W] over the ranks
void Scatter(const SequenceCut& cut, const Tensor& rows, const Tensor& local,
             Communicator& communicator, Context& context) {
  const Tensor messages = MessagesOf(cut, rows, context);
  if (!IsInOrder(cut)) MoveChunks(cut, Direction::kIntoMessages, rows, messages, context);
  communicator.ReduceScatter(messages, local).Wait();
}

using MoveFn = void (*)(const SequenceCut& cut, const Tensor& from, const Tensor& to,
                        Communicator& communicator, Context& context);

void MoveGradient(MoveFn move, const SequenceCut& cut, const Tensor& dy, const GradientSlot& dx,
                  Communicator& communicator, Context& context) {
  if (!dx.accumulate) return move(cut, dy, dx.tensor, communicator, context);
  const Tensor part = context.Empty(dy.dtype(), dx.tensor.shape(), "sequence.gradient");
  move(cut, dy, part, communicator, context);
  kernels::Cast({.x = part, .y = dx.tensor, .accumulate = true}, context);
}

// Checks that `num_rows` rows are `parts` equal parts of every sequence.
void CheckRows(const SequenceCut& cut, int64_t num_rows, int parts, const Communicator& group) {
  Check(cut);
  CHECK_EQ(cut.num_ranks, group.size()) << "group " << group.name();
  const int64_t num_parts = cut.num_sequences * parts;
  CHECK(num_parts == 0 ? num_rows == 0 : num_rows % num_parts == 0)
      << num_rows << " rows of " << cut.num_sequences << " sequences in " << parts << " parts";
}

}  // namespace

std::vector<SequenceChunk> SequenceChunks(const SequenceCut& cut, int64_t sequence_length,
                                          int rank) {
  Check(cut);
  const int num_chunks = cut.num_ranks * cut.chunks_per_rank;
  CHECK(rank >= 0 && rank < cut.num_ranks) << "rank " << rank << " of " << cut.num_ranks;
  CHECK_EQ(sequence_length % num_chunks, 0) << sequence_length << " in " << num_chunks << " chunks";
  const int64_t length = sequence_length / num_chunks;
  std::vector<SequenceChunk> chunks;
  for (int i = 0; i < cut.chunks_per_rank; ++i) {
    chunks.push_back({ChunkOf(cut, rank, i) * length, length});
  }
  return chunks;
}

Var GatherSequence(Tape& tape, const Var& x, const SequenceCut& cut, Communicator* communicator) {
  const auto [local_rows, W] = Dims<2>(x.value());
  if (communicator->size() == 1) return x;
  CheckRows(cut, local_rows, cut.chunks_per_rank, *communicator);
  const Tensor y = tape.context().Empty(x.dtype(), {local_rows * cut.num_ranks, W}, "sequence.all");
  Gather(cut, x.value(), y, *communicator, tape.context());
  return tape.Record(y, [=, x = x.id()](Tape& tape, const Tensor& dy) {
    MoveGradient(Scatter, cut, dy, tape.Gradient(x), *communicator, tape.context());
  });
}

Var ScatterSequence(Tape& tape, const Var& x, const SequenceCut& cut, Communicator* communicator) {
  const auto [rows, W] = Dims<2>(x.value());
  if (communicator->size() == 1) return x;
  CheckRows(cut, rows, cut.num_ranks * cut.chunks_per_rank, *communicator);
  const Tensor y = tape.context().Empty(x.dtype(), {rows / cut.num_ranks, W}, "sequence.local");
  Scatter(cut, x.value(), y, *communicator, tape.context());
  return tape.Record(y, [=, x = x.id()](Tape& tape, const Tensor& dy) {
    MoveGradient(Gather, cut, dy, tape.Gradient(x), *communicator, tape.context());
  });
}

}  // namespace moebius
