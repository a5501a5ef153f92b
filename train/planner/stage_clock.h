// Lets the step of one rank pass on a clock, while it runs dry: ops take time as they are told,
// exchanges occupy a link from their start, and a wait lasts until its exchange is done. What
// computation hides is thus what the training code hides, by the order of its calls.
//
// A rank has two links, within its node and out of it, each with one exchange at a time. One that
// needs both has each for its own bytes, and ends when both are done. On a cluster that does not
// overlap, an exchange takes its time where it is waited for.
//
// Where groups do not all lie alike on the nodes, an exchange takes as long as that of the slowest.
//
//   StageClock clock(cost, num_ranks);
//   DryRun(config, vocab_size, rank, num_ranks, {&clock, &clock, &clock});
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/work.h"
#include "parallel/dry_communicator.h"
#include "parallel/pipeline/executor.h"
#include "train/planner/cost_model.h"

namespace moebius {

// Seconds of a rank.
struct RankTime {
  double compute = 0;
  double exchange = 0;  // that it waited for, not what computation hid

  double total() const { return compute + exchange; }
  RankTime& operator+=(const RankTime& other);
  RankTime& operator-=(const RankTime& other);
};
RankTime operator*(double factor, const RankTime& time);

struct OpTime {
  int64_t count = 0;
  double seconds = 0;
  double flops = 0;
};
// By name of the op or the collective; of exchanges, what was waited for.
using OpTimes = std::map<std::string, OpTime>;

// Adds `factor` times `ops` to `sum`.
void Add(int64_t factor, const OpTimes& ops, OpTimes* sum);

class StageClock final : public WorkObserver, public CallObserver, public PlanObserver {
 public:
  // `cost` outlives the clock. `num_ranks`: of the world.
  StageClock(const CostModel& cost, int num_ranks) : cost_(cost), num_ranks_(num_ranks) {}

  void OpBegins(const Work& work) override;
  int64_t Started(const Call& call, const std::vector<int>& members) override;
  void Waited(int64_t call) override;
  void PlanBegins(const PipelinePlan& plan) override;
  void ActionBegins(const Action& action) override;
  void ActionEnds(const Action& action) override;
  void PlanEnds() override {}

  // A pipeline plan that the step has run, and what its computing actions took.
  struct PlanTimes {
    PipelinePlan plan = {};
    std::map<Action, RankTime> actions = {};
    OpTimes middle_ops = {};  // in the actions of the micro-batch in the middle

    int middle() const { return plan.spec.num_micro_batches / 2; }
  };
  const std::vector<PlanTimes>& plans() const { return plans_; }

  RankTime total() const { return total_; }
  RankTime outside() const;  // of all that is no action of a plan

  // Their seconds add up to total().
  const OpTimes& ops() const { return ops_; }

 private:
  struct Exchange {
    const char* name = "";
    double seconds = 0;
    double end = 0;
  };

  const GroupSpread& SpreadOf(const std::vector<int>& members);
  double Occupy(double seconds, double* link_free) const;

  const CostModel& cost_;
  const int num_ranks_;
  std::map<std::vector<int>, GroupSpread> spreads_;  // by members
  RankTime total_;
  double within_node_free_ = 0;  // from when on a link is
  double between_nodes_free_ = 0;
  std::vector<Exchange> exchanges_;  // by number
  std::vector<PlanTimes> plans_;
  RankTime action_begin_;  // total_ and ops_, when the action that runs began
  OpTimes ops_begin_;
  OpTimes ops_;
};

}  // namespace moebius
