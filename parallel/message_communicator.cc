#include "parallel/message_communicator.h"

#include <algorithm>
#include <cstring>

namespace moebius {
namespace {

// Up to here a sum is one stage: everything to everyone. Both ways add in the same order.
constexpr int64_t kSmallBytes = 4096;

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

// The r-th of `size` nearly equal pieces.
Elements Piece(Elements x, int r, int size) {
  return x.Slice(x.count * r / size, x.count * (r + 1) / size);
}

}  // namespace

// Stages that run one after the other; each starts messages, and the next one waits for them.
class MessageOperation final : public Operation, public Pending {
 public:
  MessageOperation(MessageCommunicator& group, const Call& call) : group_(group), call_(call) {}

  void AddStage(std::function<void()> stage) { stages_.push_back(std::move(stage)); }

  void Send(int to, Elements x) {
    if (x.count > 0) Add(to, group_.transport_->Send(to, Tag(), x.bytes()));
  }
  void Receive(int from, Elements x) {
    if (x.count > 0) Add(from, group_.transport_->Receive(from, Tag(), x.bytes()));
  }

  // Memory that lives as long as the operation.
  Elements Scratch(int64_t count, DType dtype) {
    scratch_ = group_.progress_->arena().Allocate(count * SizeOf(dtype), "messages");
    return {static_cast<std::byte*>(scratch_->data()), count, dtype};
  }

  bool Poll() override {
    group_.progress_->Poll();
    return group_.progress_->IsDone(*this);
  }
  void Wait() override { group_.progress_->Wait(*this); }

  const Call& call() const override { return call_; }
  const std::string& group() const override { return group_.name_; }
  std::string Title() const override {
    return absl::StrCat("group ", group_.name_, ", ", call_.ToString());
  }

  absl::StatusOr<bool> Advance() override {
    while (true) {
      absl::Status status;
      std::erase_if(underway_, [&](const Underway& message) {
        const absl::StatusOr<bool> done = message.transfer->Poll();
        if (!done.ok()) status = Describe(message.peer, done.status());
        return done.ok() && *done;
      });
      if (!status.ok()) return status;
      if (!underway_.empty()) return false;
      if (next_stage_ == stages_.size()) {
        scratch_.reset();  // though a Handle may keep the operation
        return true;
      }
      stages_[next_stage_++]();
    }
  }

  std::optional<std::string> Mismatch(const Board& board) const override {
    if (call_.is_message()) return std::nullopt;
    for (const int member : group_.members_) {
      const auto theirs = board.At(member, group_.group_, call_.sequence);
      if (!theirs || theirs->SameAs(call_)) continue;
      return absl::StrCat("group ", group_.name_, ": rank ", group_.progress_->world_rank(),
                          " calls ", call_.ToString(), " where rank ", member, " calls ",
                          theirs->ToString(),
                          ": all ranks of a group must call the same operations in one order");
    }
    return std::nullopt;
  }

  std::vector<int> Missing(const Board& board) const override {
    std::vector<int> missing;
    for (const int member : group_.members_) {
      if (call_.is_message()) break;
      if (board.Latest(member, group_.group_) < call_.sequence) missing.push_back(member);
    }
    if (!missing.empty()) return missing;
    for (const auto& message : underway_) missing.push_back(group_.members_[message.peer]);
    std::ranges::sort(missing);
    missing.erase(std::ranges::unique(missing).begin(), missing.end());
    return missing;
  }

 private:
  struct Underway {
    int peer;
    std::unique_ptr<Transfer> transfer;
  };

  void Add(int peer, std::unique_ptr<Transfer> transfer) {
    underway_.push_back({peer, std::move(transfer)});
  }

  // Messages of different collectives never meet; a send and its receive do. 15 bits: what MPI
  // promises.
  int Tag() const {
    const int stage = static_cast<int>(next_stage_ - 1);
    const Collective kind = std::min(call_.collective, Collective::kSend);
    return stage | static_cast<int>(kind) << 1 | static_cast<int>(call_.dtype) << 4 |
           static_cast<int>(call_.sequence % 256) << 7;
  }

  absl::Status Describe(int peer, const absl::Status& error) const {
    return absl::InternalError(absl::StrCat(Title(), ": rank ", group_.progress_->world_rank(),
                                            " and rank ", group_.members_[peer], ": ",
                                            error.message()));
  }

  MessageCommunicator& group_;
  const Call call_;
  std::vector<std::function<void()>> stages_;
  size_t next_stage_ = 0;
  std::vector<Underway> underway_;
  std::shared_ptr<Storage> scratch_;
};

MessageCommunicator::MessageCommunicator(std::string name, int group, std::vector<int> members,
                                         std::unique_ptr<Transport> transport, Progress* progress)
    : name_(std::move(name)),
      group_(group),
      members_(std::move(members)),
      rank_(
          static_cast<int>(std::ranges::find(members_, progress->world_rank()) - members_.begin())),
      transport_(std::move(transport)),
      progress_(progress),
      sent_(members_.size()),
      received_(members_.size()) {
  CHECK_LT(rank_, size()) << "not a member of group " << name_;
}

std::shared_ptr<MessageOperation> MessageCommunicator::NewOperation(const Call& call) {
  Call numbered = call;
  if (!call.is_message()) numbered.sequence = ++sequence_;
  numbered.order = progress_->NextOrder();
  progress_->board().Publish(progress_->world_rank(), group_, name_, numbered);
  return std::make_shared<MessageOperation>(*this, numbered);
}

Handle MessageCommunicator::Run(std::shared_ptr<MessageOperation> operation) {
  progress_->Start(operation);
  return Handle(std::move(operation));
}

Handle MessageCommunicator::AllReduce(Elements x) {
  return Reduce({.collective = Collective::kAllReduce,
                 .dtype = x.dtype,
                 .count = x.count,
                 .bytes = std::ssize(x.bytes())},
                Reduction::kSum, x);
}

Handle MessageCommunicator::AllReduceMax(Elements x) {
  return Reduce({.collective = Collective::kAllReduceMax,
                 .dtype = x.dtype,
                 .count = x.count,
                 .bytes = std::ssize(x.bytes())},
                Reduction::kMax, x);
}

Handle MessageCommunicator::Reduce(const Call& call, Reduction reduction, Elements x) {
  auto operation = NewOperation(call);
  if (size() == 1) return Run(std::move(operation));
  const bool small = static_cast<int64_t>(x.bytes().size()) <= kSmallBytes;
  const auto piece_of = [=, size = size()](int r) { return small ? x : Piece(x, r, size); };
  const Elements mine = piece_of(rank_);
  const Elements parts = operation->Scratch(size() * mine.count, x.dtype);
  const auto part = [=](int r) { return parts.Slice(r * mine.count, (r + 1) * mine.count); };

  operation->AddStage([=, this, op = operation.get()] {
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      op->Receive(r, part(r));
      op->Send(r, piece_of(r));
    }
  });
  operation->AddStage([=, this, op = operation.get()] {
    std::vector<const std::byte*> pointers;
    for (int r = 0; r < size(); ++r) pointers.push_back((r == rank_ ? mine : part(r)).data);
    ReduceInRankOrder(reduction, x.dtype, pointers, mine.count, mine.dtype, mine.data);
    if (small) return;
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      op->Receive(r, piece_of(r));
      op->Send(r, mine);
    }
  });
  return Run(std::move(operation));
}

Handle MessageCommunicator::AllGather(Elements mine, Elements all) {
  CHECK_EQ(all.count, size() * mine.count);
  if (size() == 1) return CopyAlone(mine, all);
  auto operation = NewOperation({.collective = Collective::kAllGather,
                                 .dtype = mine.dtype,
                                 .count = mine.count,
                                 .bytes = std::ssize(mine.bytes())});
  operation->AddStage([=, this, op = operation.get()] {
    const auto place = [&](int r) { return all.Slice(r * mine.count, (r + 1) * mine.count); };
    Copy(mine, place(rank_));
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      op->Receive(r, place(r));
      op->Send(r, mine);
    }
  });
  return Run(std::move(operation));
}

Handle MessageCommunicator::ReduceScatter(Elements all, Elements mine) {
  CHECK_EQ(all.count, size() * mine.count);
  if (size() == 1 && all.dtype == mine.dtype) return CopyAlone(all, mine);
  auto operation = NewOperation({.collective = Collective::kReduceScatter,
                                 .dtype = all.dtype,
                                 .count = mine.count,
                                 .bytes = std::ssize(all.bytes())});
  const Elements parts = operation->Scratch(all.count, all.dtype);
  const auto part = [=](Elements x, int r) {
    return x.Slice(r * mine.count, (r + 1) * mine.count);
  };

  operation->AddStage([=, this, op = operation.get()] {
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      op->Receive(r, part(parts, r));
      op->Send(r, part(all, r));
    }
  });
  operation->AddStage([=, this] {
    std::vector<const std::byte*> pointers;
    for (int r = 0; r < size(); ++r) pointers.push_back(part(r == rank_ ? all : parts, r).data);
    ReduceInRankOrder(Reduction::kSum, all.dtype, pointers, mine.count, mine.dtype, mine.data);
  });
  return Run(std::move(operation));
}

Handle MessageCommunicator::AllToAllV(const RowsByRank& send, const RowsByRank& receive,
                                      int64_t row_size) {
  const auto parts_of = [&](const RowsByRank& x) {
    CHECK_EQ(static_cast<int>(x.counts.size()), size()) << "one count a rank";
    std::vector<Elements> parts;
    int64_t begin = 0;
    for (const int32_t count : x.counts) {
      parts.push_back(x.rows.Slice(begin, begin + count * row_size));
      begin += count * row_size;
    }
    CHECK_LE(begin, x.rows.count) << "more rows counted than there are";
    return parts;
  };
  CHECK(send.rows.dtype == receive.rows.dtype);
  auto operation = NewOperation({.collective = Collective::kAllToAllV,
                                 .dtype = send.rows.dtype,
                                 .count = row_size,
                                 .bytes = std::ssize(send.rows.bytes())});
  operation->AddStage(
      [=, this, op = operation.get(), out = parts_of(send), in = parts_of(receive)] {
        Copy(out[rank_], in[rank_]);
        for (int r = 0; r < size(); ++r) {
          if (r == rank_) continue;
          op->Receive(r, in[r]);
          op->Send(r, out[r]);
        }
      });
  return Run(std::move(operation));
}

Handle MessageCommunicator::Broadcast(Elements x, int root) {
  auto operation = NewOperation({.collective = Collective::kBroadcast,
                                 .dtype = x.dtype,
                                 .root = root,
                                 .count = x.count,
                                 .bytes = std::ssize(x.bytes())});
  operation->AddStage([=, this, op = operation.get()] {
    if (rank_ != root) return op->Receive(root, x);
    for (int r = 0; r < size(); ++r) {
      if (r != root) op->Send(r, x);
    }
  });
  return Run(std::move(operation));
}

Handle MessageCommunicator::Barrier() {
  auto operation = NewOperation({.collective = Collective::kBarrier});
  const Elements signs = operation->Scratch(size(), DType::kU8);
  std::memset(signs.data, 0, signs.bytes().size());
  operation->AddStage([=, this, op = operation.get()] {
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      op->Receive(r, signs.Slice(r, r + 1));
      op->Send(r, signs.Slice(rank_, rank_ + 1));
    }
  });
  return Run(std::move(operation));
}

Handle MessageCommunicator::Send(Elements x, int to) {
  auto operation = NewOperation({.collective = Collective::kSend,
                                 .dtype = x.dtype,
                                 .root = members_[to],
                                 .count = x.count,
                                 .bytes = std::ssize(x.bytes()),
                                 .sequence = ++sent_[to]});
  operation->AddStage([=, op = operation.get()] { op->Send(to, x); });
  return Run(std::move(operation));
}

Handle MessageCommunicator::Receive(Elements x, int from) {
  auto operation = NewOperation({.collective = Collective::kReceive,
                                 .dtype = x.dtype,
                                 .root = members_[from],
                                 .count = x.count,
                                 .bytes = std::ssize(x.bytes()),
                                 .sequence = ++received_[from]});
  operation->AddStage([=, op = operation.get()] { op->Receive(from, x); });
  return Run(std::move(operation));
}

std::unique_ptr<Communicator> MessageCommunicator::Split(const std::vector<int>& ranks,
                                                         const std::string& name) {
  // The new group's number: one that is free on all ranks of this group.
  int32_t group = progress_->next_group();
  AllReduceMax(std::span(&group, 1)).Wait();
  progress_->set_next_group(group + 1);
  std::vector<int> in_world;
  for (const int rank : ranks) in_world.push_back(members_[rank]);
  return std::make_unique<MessageCommunicator>(name, group, std::move(in_world),
                                               transport_->Split(group, ranks), progress_);
}

}  // namespace moebius
