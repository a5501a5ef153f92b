#include "tests/parity/mutating_communicator.h"

#include <utility>

#include "core/base/check.h"

namespace moebius {
namespace {

void Scale(const Elements& x, double factor) {
  CHECK(x.dtype == DType::kF64);
  auto* values = reinterpret_cast<double*>(x.data);
  for (int64_t i = 0; i < x.count; ++i) values[i] *= factor;
}

class MutatingCommunicator final : public Communicator {
 public:
  MutatingCommunicator(Communicator& base, std::unique_ptr<Communicator> owned,
                       const Mutation& mutation, std::atomic<int>* applied)
      : owned_(std::move(owned)), base_(base), mutation_(mutation), applied_(applied) {}

  const std::string& name() const override { return base_.name(); }
  int rank() const override { return base_.rank(); }
  const std::vector<int>& members() const override { return base_.members(); }

  Handle AllReduce(Elements x) override {
    if (!Applies(Mutation::Operation::kAllReduce, x)) return base_.AllReduce(x);
    if (mutation_.kind == Mutation::Kind::kDropped) return Handle();
    if (mutation_.kind == Mutation::Kind::kCountedTwice && rank() == 0) Scale(x, 2);
    base_.AllReduce(x).Wait();
    if (mutation_.kind == Mutation::Kind::kDividedBySize) Scale(x, 1.0 / size());
    return Handle();
  }

  Handle AllReduceMax(Elements x) override { return base_.AllReduceMax(x); }
  Handle AllGather(Elements mine, Elements all) override {
    if (Applies(Mutation::Operation::kAllGather, all)) return Handle();
    return base_.AllGather(mine, all);
  }
  Handle ReduceScatter(Elements all, Elements mine) override {
    const bool applies = Applies(Mutation::Operation::kReduceScatter, all);
    if (applies && mutation_.kind == Mutation::Kind::kDropped) return Handle();
    if (applies && rank() == 0) Scale(all, 0);
    return base_.ReduceScatter(all, mine);
  }
  Handle AllToAllV(const RowsByRank& send, const RowsByRank& receive, int64_t row_size) override {
    return base_.AllToAllV(send, receive, row_size);
  }
  Handle Broadcast(Elements x, int root) override { return base_.Broadcast(x, root); }
  Handle Barrier() override { return base_.Barrier(); }
  Handle Send(Elements x, int to) override { return base_.Send(x, to); }
  Handle Receive(Elements x, int from) override { return base_.Receive(x, from); }

  std::unique_ptr<Communicator> Split(const std::vector<int>& ranks,
                                      const std::string& name) override {
    auto group = base_.Split(ranks, name);
    Communicator& base = *group;
    return std::make_unique<MutatingCommunicator>(base, std::move(group), mutation_, applied_);
  }

 private:
  bool Applies(Mutation::Operation operation, const Elements& x) {
    const bool applies = mutation_.kind != Mutation::Kind::kNone &&
                         operation == mutation_.operation && name() == mutation_.group &&
                         x.count >= mutation_.min_count && x.count <= mutation_.max_count;
    if (applies) ++*applied_;
    return applies;
  }

  const std::unique_ptr<Communicator> owned_;
  Communicator& base_;
  const Mutation& mutation_;
  std::atomic<int>* const applied_;
};

}  // namespace

std::unique_ptr<Communicator> Mutate(Communicator& world, const Mutation& mutation,
                                     std::atomic<int>* applied) {
  return std::make_unique<MutatingCommunicator>(world, nullptr, mutation, applied);
}

}  // namespace moebius
