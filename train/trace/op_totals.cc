#include "train/trace/op_totals.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace moebius {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxRows = 20;

struct Namer {
  std::string operator()(const TracedStep& step) const {
    return absl::StrCat("step ", step.number);
  }
  std::string operator()(const TracedPhase& phase) const { return phase.name; }
  std::string operator()(const Action& action) const { return action.ToString(); }
  std::string operator()(const Work& work) const { return work.op; }
  std::string operator()(const TracedCall& call) const {
    const char* name = NameOf(call.call.collective);
    return call.part == TracedCall::Part::kStart  ? absl::StrCat("start ", name)
           : call.part == TracedCall::Part::kWait ? absl::StrCat("wait ", name)
                                                  : name;
  }
};

void Count(OpTotal& sum, const OpTotal& other) {
  sum.calls += other.calls;
  sum.own_ns += other.own_ns;
  sum.flops += other.flops;
  sum.bytes += other.bytes;
}

std::string RateOf(const OpTotal& op) {
  if (op.own_ns <= 0 || op.flops + op.bytes == 0) return "";
  const auto ns = static_cast<double>(op.own_ns);
  return op.flops > 0 ? absl::StrFormat("%.1f GFLOP/s", op.flops / ns)
                      : absl::StrFormat("%.1f GB/s", op.bytes / ns);
}

std::string Row(const std::string& name, const OpTotal& op, int64_t steps_ns) {
  const std::string calls = op.calls > 0 ? absl::StrCat(op.calls) : "";
  const double share = static_cast<double>(op.own_ns) / static_cast<double>(steps_ns);
  std::string row = absl::StrFormat("%-28s %8s %12.2f %6.1f%% %16s", name, calls,
                                    1e-6 * static_cast<double>(op.own_ns), 100 * share, RateOf(op));
  row.erase(row.find_last_not_of(' ') + 1);
  return row;
}

}  // namespace

std::string NameOf(const TraceEvent& event) { return std::visit(Namer{}, event.what); }

StepTotals TotalsOf(const TraceRecorder& recorder) {
  StepTotals totals{.num_left_out = recorder.num_left_out()};
  for (const TraceEvent& event : recorder.events()) {
    if (std::holds_alternative<TracedStep>(event.what)) {
      ++totals.num_steps;
      totals.steps_ns += event.duration_ns();
    } else if (const Work* work = std::get_if<Work>(&event.what)) {
      Count(totals.ops[work->op],
            {1, event.own_ns(), work->flops, static_cast<double>(work->bytes)});
    } else if (std::holds_alternative<TracedCall>(event.what) && !event.is_under_way()) {
      Count(totals.ops[NameOf(event)], {1, event.own_ns(), 0, 0});
    }
  }
  return totals;
}

void AddTo(StepTotals& sum, const StepTotals& other) {
  sum.num_steps += other.num_steps;
  sum.steps_ns += other.steps_ns;
  sum.num_left_out += other.num_left_out;
  for (const auto& [name, op] : other.ops) Count(sum.ops[name], op);
}

std::string Encode(const StepTotals& totals) {
  Json ops = Json::object();
  for (const auto& [name, op] : totals.ops) ops[name] = {op.calls, op.own_ns, op.flops, op.bytes};
  return Json{totals.num_steps, totals.steps_ns, totals.num_left_out, ops}.dump();
}

StepTotals Decode(const std::string& text) {
  const Json json = Json::parse(text);
  StepTotals totals{json[0].get<int64_t>(), json[1].get<int64_t>(), json[2].get<int64_t>(), {}};
  for (const auto& [name, op] : json[3].items()) {
    totals.ops[name] = {op[0].get<int64_t>(), op[1].get<int64_t>(), op[2].get<double>(),
                        op[3].get<double>()};
  }
  return totals;
}

std::vector<std::string> Table(const StepTotals& totals) {
  std::vector<std::pair<std::string, OpTotal>> ops(totals.ops.begin(), totals.ops.end());
  std::ranges::stable_sort(ops, std::greater(), [](const auto& op) { return op.second.own_ns; });
  std::vector<std::string> lines = {
      absl::StrFormat("%-28s %8s %12s %7s %16s", "op", "calls", "total ms", "share", "rate")};
  OpTotal others, between{.own_ns = totals.steps_ns};
  for (size_t i = 0; i < ops.size(); ++i) {
    const auto& [name, op] = ops[i];
    between.own_ns -= op.own_ns;
    if (i < kMaxRows) {
      lines.push_back(Row(name, op, totals.steps_ns));
    } else {
      Count(others, {op.calls, op.own_ns, 0, 0});
    }
  }
  if (ops.size() > kMaxRows) {
    lines.push_back(Row(absl::StrCat(ops.size() - kMaxRows, " others"), others, totals.steps_ns));
  }
  lines.push_back(Row("between ops", between, totals.steps_ns));
  return lines;
}

}  // namespace moebius
