#include "parallel/message_communicator.h"

#include <algorithm>
#include <cstring>

#include "parallel/message_operation.h"
#include "parallel/message_reduction.h"

namespace moebius {
namespace {

// Up to here, counted over what a rank gets, a sum is one round: everything to everyone. Both ways
// add in the same order. Measured: docs/performance.md, "Two ranks".
constexpr int64_t kAtOnceBytes = 16 << 10;

void Copy(Elements from, Elements to) {
  CHECK_EQ(from.count, to.count);
  CHECK(from.dtype == to.dtype) << NameOf(from.dtype) << " into " << NameOf(to.dtype);
  if (from.count > 0) std::memmove(to.data, from.data, from.bytes().size());
}

// An exchange among one rank: done at once.
Handle CopyAlone(Elements from, Elements to) {
  if (from.data != to.data) Copy(from, to);
  return Handle();
}

// To every other rank what is for it, and from every other what it has for this one.
template <class ForRank, class FromRank>
void Exchange(MessageOperation& operation, const ForRank& for_rank, const FromRank& from_rank) {
  const MessageGroup& group = operation.ranks();
  for (int r = 0; r < group.size(); ++r) {
    if (r == group.rank) continue;
    operation.Receive(r, {.elements = from_rank(r)});
    operation.Send(r, {.elements = for_rank(r)});
  }
}

}  // namespace

MessageCommunicator::MessageCommunicator(std::string name, int group, std::vector<int> members,
                                         std::unique_ptr<Transport> transport, Progress* progress)
    : group_(std::make_unique<MessageGroup>(MessageGroup{.name = std::move(name),
                                                         .number = group,
                                                         .members = std::move(members),
                                                         .rank = 0,
                                                         .transport = std::move(transport),
                                                         .progress = progress})),
      sent_(group_->members.size()),
      received_(group_->members.size()) {
  const auto self = std::ranges::find(group_->members, progress->world_rank());
  CHECK(self != group_->members.end()) << "not a member of group " << group_->name;
  group_->rank = static_cast<int>(self - group_->members.begin());
}

MessageCommunicator::~MessageCommunicator() = default;

const std::string& MessageCommunicator::name() const { return group_->name; }
int MessageCommunicator::rank() const { return group_->rank; }
const std::vector<int>& MessageCommunicator::members() const { return group_->members; }

template <class Stage>
Handle MessageCommunicator::Run(Call call, int num_stages, Stage stage) {
  Progress& progress = *group_->progress;
  if (!call.is_message()) call.sequence = ++sequence_;
  call.order = progress.NextOrder();
  progress.board().Publish(progress.world_rank(), group_->number, group_->name, call);
  auto operation = std::make_shared<MessageOperation>(*group_, call, num_stages, std::move(stage));
  progress.Start(operation);
  return Handle(std::move(operation));
}

template <class Stage>
Handle MessageCommunicator::RunOnce(const Call& call, Stage stage) {
  return Run(call, 1,
             [stage = std::move(stage)](MessageOperation& operation, int) { stage(operation); });
}

Handle MessageCommunicator::AllReduce(Elements x) {
  return Reduce(Collective::kAllReduce, Reduction::kSum, x);
}

Handle MessageCommunicator::AllReduceMax(Elements x) {
  return Reduce(Collective::kAllReduceMax, Reduction::kMax, x);
}

Handle MessageCommunicator::Reduce(Collective collective, Reduction reduction, Elements x) {
  const int64_t bytes = std::ssize(x.bytes());
  const bool at_once = (size() - 1) * bytes <= kAtOnceBytes;
  const MessageReduction sum(
      *group_, at_once ? MessageReduction::Kind::kAllAtOnce : MessageReduction::Kind::kAll,
      reduction, x);
  return Run({.collective = collective, .dtype = x.dtype, .count = x.count, .bytes = bytes},
             size() == 1 ? 0 : sum.num_stages(),
             [sum](MessageOperation& operation, int stage) { sum.RunStage(operation, stage); });
}

Handle MessageCommunicator::AllGather(Elements mine, Elements all) {
  CHECK_EQ(all.count, size() * mine.count);
  if (size() == 1) return CopyAlone(mine, all);
  return RunOnce({.collective = Collective::kAllGather,
                  .dtype = mine.dtype,
                  .count = mine.count,
                  .bytes = std::ssize(mine.bytes())},
                 [=, this](MessageOperation& operation) {
                   const auto place = [&](int r) {
                     return all.Slice(r * mine.count, (r + 1) * mine.count);
                   };
                   Exchange(
                       operation, [&](int) { return mine; }, place);
                   Copy(mine, place(rank()));
                 });
}

Handle MessageCommunicator::ReduceScatter(Elements all, Elements mine) {
  CHECK_EQ(all.count, size() * mine.count);
  if (size() == 1 && all.dtype == mine.dtype) return CopyAlone(all, mine);
  const MessageReduction sum(*group_, MessageReduction::Kind::kScatter, Reduction::kSum, all, mine);
  return Run({.collective = Collective::kReduceScatter,
              .dtype = all.dtype,
              .count = mine.count,
              .bytes = std::ssize(all.bytes())},
             sum.num_stages(),
             [sum](MessageOperation& operation, int stage) { sum.RunStage(operation, stage); });
}

Handle MessageCommunicator::AllToAllV(const RowsByRank& send, const RowsByRank& receive,
                                      int64_t row_size) {
  const auto parts_of = [&](const RowsByRank& x) {
    CHECK_EQ(static_cast<int>(x.counts.size()), size()) << "one count a rank";
    std::vector<Elements> parts;
    parts.reserve(x.counts.size());
    int64_t begin = 0;
    for (const int32_t count : x.counts) {
      parts.push_back(x.rows.Slice(begin, begin + count * row_size));
      begin += count * row_size;
    }
    CHECK_LE(begin, x.rows.count) << "more rows counted than there are";
    return parts;
  };
  CHECK(send.rows.dtype == receive.rows.dtype);
  return RunOnce({.collective = Collective::kAllToAllV,
                  .dtype = send.rows.dtype,
                  .count = row_size,
                  .bytes = std::ssize(send.rows.bytes())},
                 [this, out = parts_of(send), in = parts_of(receive)](MessageOperation& operation) {
                   Exchange(
                       operation, [&](int r) { return out[r]; }, [&](int r) { return in[r]; });
                   Copy(out[rank()], in[rank()]);
                 });
}

Handle MessageCommunicator::Broadcast(Elements x, int root) {
  return RunOnce({.collective = Collective::kBroadcast,
                  .dtype = x.dtype,
                  .root = root,
                  .count = x.count,
                  .bytes = std::ssize(x.bytes())},
                 [=, this](MessageOperation& operation) {
                   if (rank() != root) return operation.Receive(root, {.elements = x});
                   for (int r = 0; r < size(); ++r) {
                     if (r != root) operation.Send(r, {.elements = x});
                   }
                 });
}

Handle MessageCommunicator::Barrier() {
  return RunOnce({.collective = Collective::kBarrier}, [this](MessageOperation& operation) {
    const Elements signs(operation.MakeScratch(size()), size(), DType::kU8);
    std::memset(signs.data, 0, signs.bytes().size());
    const auto sign = [&](int r) { return signs.Slice(r, r + 1); };
    Exchange(
        operation, [&](int) { return sign(rank()); }, sign);
  });
}

Handle MessageCommunicator::Send(Elements x, int to) {
  return RunOnce({.collective = Collective::kSend,
                  .dtype = x.dtype,
                  .root = members()[to],
                  .count = x.count,
                  .bytes = std::ssize(x.bytes()),
                  .sequence = ++sent_[to]},
                 [=](MessageOperation& operation) { operation.Send(to, {.elements = x}); });
}

Handle MessageCommunicator::Receive(Elements x, int from) {
  return RunOnce({.collective = Collective::kReceive,
                  .dtype = x.dtype,
                  .root = members()[from],
                  .count = x.count,
                  .bytes = std::ssize(x.bytes()),
                  .sequence = ++received_[from]},
                 [=](MessageOperation& operation) { operation.Receive(from, {.elements = x}); });
}

Handle MessageCommunicator::Carry(Call call, int peer, std::unique_ptr<Transfer> carrier) {
  if (call.is_message()) {
    call.root = members()[peer];
    call.sequence = ++(call.collective == Collective::kSend ? sent_ : received_)[peer];
  }
  const auto held = std::make_shared<std::unique_ptr<Transfer>>(std::move(carrier));
  return RunOnce(call, [=](MessageOperation& operation) {
    operation.Carry(call.is_message() ? peer : MessageOperation::kEveryone, std::move(*held));
  });
}

std::unique_ptr<Communicator> MessageCommunicator::Split(const std::vector<int>& ranks,
                                                         const std::string& name) {
  // The new group's number: one that is free on all ranks of this group.
  Progress& progress = *group_->progress;
  int32_t group = progress.next_group();
  AllReduceMax(std::span(&group, 1)).Wait();
  progress.set_next_group(group + 1);
  std::vector<int> in_world;
  for (const int rank : ranks) in_world.push_back(members()[rank]);
  return std::make_unique<MessageCommunicator>(name, group, std::move(in_world),
                                               group_->transport->Split(group, ranks), &progress);
}

}  // namespace moebius
