#include "train/trace/trace_file.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "train/trace/op_totals.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kOwnThread = 0;  // and the rows behind it are exchanges under way

struct Category {
  const char* operator()(const TracedStep& /*step*/) const { return "step"; }
  const char* operator()(const TracedPhase& /*phase*/) const { return "phase"; }
  const char* operator()(const Action& /*action*/) const { return "pipeline"; }
  const char* operator()(const Work& /*work*/) const { return "op"; }
  const char* operator()(const TracedCall& call) const {
    return call.part == TracedCall::Part::kStart  ? "start"
           : call.part == TracedCall::Part::kWait ? "wait"
                                                  : "exchange";
  }
};

Json WorkArgs(const Work& work, int64_t duration_ns) {
  Json args = {{"bytes", work.bytes}};
  const auto ns = static_cast<double>(std::max<int64_t>(duration_ns, 1));
  if (work.flops == 0) {
    args["GB/s"] = static_cast<double>(work.bytes) / ns;
    return args;
  }
  args["flops"] = work.flops;
  args["GFLOP/s"] = work.flops / ns;
  args["rows"] = work.rows;
  if (work.kind == Work::Kind::kProduct) {
    args["inner"] = work.inner;
    args["columns"] = work.columns;
    args["groups"] = work.groups;
  }
  args["dtype"] = NameOf(work.dtype);
  return args;
}

Json CallArgs(const TracedCall& traced, const std::vector<std::string>& groups) {
  const Call& call = traced.call;
  Json args = {{"group", groups[traced.group_idx]}, {"number", call.sequence}};
  if (call.collective == Collective::kBarrier) return args;
  args["count"] = call.count;
  args["dtype"] = NameOf(call.dtype);
  args["bytes"] = call.bytes;
  if (call.collective == Collective::kBroadcast) args["root"] = call.root;
  if (call.is_message()) args["peer"] = call.root;
  return args;
}

Json ArgsOf(const TraceEvent& event, const std::vector<std::string>& groups) {
  if (const auto* work = std::get_if<Work>(&event.what)) {
    return WorkArgs(*work, event.duration_ns());
  }
  if (const auto* call = std::get_if<TracedCall>(&event.what)) return CallArgs(*call, groups);
  if (const auto* action = std::get_if<Action>(&event.what)) {
    return {{"micro_batch", action->micro_batch}, {"chunk", action->chunk}};
  }
  return Json::object();
}

// Rows in which nothing overlaps: the first that is free.
class ExchangeRows {
 public:
  int RowFor(const TraceEvent& event) {
    for (size_t i = 0; i < free_ns_.size(); ++i) {
      if (free_ns_[i] > event.begin_ns) continue;
      free_ns_[i] = event.end_ns;
      return static_cast<int>(i) + kOwnThread + 1;
    }
    free_ns_.push_back(event.end_ns);
    return count() + kOwnThread;
  }
  int count() const { return static_cast<int>(free_ns_.size()); }

 private:
  std::vector<int64_t> free_ns_;
};

class Lines {
 public:
  explicit Lines(int rank) : rank_(rank) {}

  void Event(const TraceEvent& event, int row, const std::vector<std::string>& groups,
             int64_t origin_ns) {
    Append({{"name", NameOf(event)},
            {"cat", std::visit(Category{}, event.what)},
            {"ph", "X"},
            {"ts", static_cast<double>(event.begin_ns - origin_ns) / 1e3},
            {"dur", static_cast<double>(event.duration_ns()) / 1e3},
            {"pid", rank_},
            {"tid", row},
            {"args", ArgsOf(event, groups)}});
  }

  // What a viewer writes before the events of a process, or before one of its rows.
  void Name(const char* what, const std::string& name, int row) {
    Append({{"name", what}, {"ph", "M"}, {"pid", rank_}, {"tid", row}, {"args", {{"name", name}}}});
  }

  std::string& text() { return text_; }

 private:
  void Append(const Json& line) {
    absl::StrAppend(&text_, text_.empty() ? "" : ",\n", std::string(line.dump()));
  }

  const int rank_;
  std::string text_;
};

std::string Temporary(const std::string& path) { return absl::StrCat(path, ".tmp.", ::getpid()); }

}  // namespace

std::string EventsJson(const TraceRecorder& recorder, int rank, int64_t origin_ns) {
  Lines lines(rank);
  lines.Name("process_name", absl::StrCat("rank ", rank), kOwnThread);
  lines.Name("thread_name", "compute", kOwnThread);
  ExchangeRows rows;
  for (const TraceEvent& event : recorder.events()) {
    if (event.duration_ns() < 0) continue;
    const int row = event.is_under_way() ? rows.RowFor(event) : kOwnThread;
    lines.Event(event, row, recorder.groups(), origin_ns);
  }
  for (int i = 1; i <= rows.count(); ++i) {
    lines.Name("thread_name", absl::StrCat("communication ", i), kOwnThread + i);
  }
  return std::move(lines.text());
}

absl::Status CheckTracePath(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(absl::StrCat("--trace: ", path, " is not a file"));
  }
  const auto file = TraceFile::Create(path);
  if (file.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--trace: ", absl::StrReplaceAll(file.status().message(), {{Temporary(path), path}})));
}

absl::StatusOr<TraceFile> TraceFile::Create(const std::string& path) {
  ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(Temporary(path)));
  TraceFile trace(path, std::move(file));
  RETURN_IF_ERROR(
      trace.file_.Write(absl::string_view("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n")));
  return trace;
}

TraceFile::~TraceFile() {
  if (file_.is_open()) ::unlink(file_.path().c_str());
}

absl::Status TraceFile::Add(absl::string_view events) {
  if (events.empty()) return absl::OkStatus();
  if (!std::exchange(is_empty_, false)) {
    RETURN_IF_ERROR(file_.Write(absl::string_view(",\n")));
  }
  return file_.Write(events);
}

absl::Status TraceFile::Commit() {
  RETURN_IF_ERROR(file_.Write(absl::string_view("\n]}\n")));
  RETURN_IF_ERROR(file_.Sync());
  std::error_code error;
  std::filesystem::rename(file_.path(), path_, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat(path_, ": cannot rename to"));
  return file_.Close();
}

}  // namespace moebius
