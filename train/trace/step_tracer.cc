#include "train/trace/step_tracer.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <span>

#include "absl/strings/str_format.h"
#include "train/trace/op_totals.h"
#include "train/trace/trace_file.h"

namespace moebius {
namespace {

constexpr int64_t kWarmUpSteps = 2;

void SendNumber(Communicator& world, int64_t number, int to) {
  world.Send(std::span(&number, 1), to).Wait();
}

int64_t ReceiveNumber(Communicator& world, int from) {
  int64_t number = 0;
  world.Receive(std::span(&number, 1), from).Wait();
  return number;
}

// How far the clock of `rank` is ahead, asked by rank 0.
int64_t AskAhead(Communicator& world, int rank, int num_questions) {
  int64_t ahead = 0, fastest = std::numeric_limits<int64_t>::max();
  for (int i = 0; i < num_questions; ++i) {
    const int64_t asked = SteadyClockNs();
    SendNumber(world, i, rank);
    const int64_t theirs = ReceiveNumber(world, rank);
    const int64_t answered = SteadyClockNs();
    if (answered - asked >= fastest) continue;
    fastest = answered - asked;
    ahead = theirs - (asked + fastest / 2);
  }
  return ahead;
}

std::span<uint8_t> BytesOf(std::string& text) {
  return {reinterpret_cast<uint8_t*>(text.data()), text.size()};
}

// Calls body(rank, text) on rank 0 for the text of each rank, one after the other. All wait for
// each: so that no wait is longer than what is done with one text.
template <class Fn>
void AtRank0(Communicator& world, std::string own, const Fn& body) {
  for (int rank = 0; rank < world.size(); ++rank) {
    if (world.rank() == rank && rank > 0) {
      SendNumber(world, std::ssize(own), 0);
      world.Send(BytesOf(own), 0).Wait();
    } else if (world.rank() == 0 && rank > 0) {
      std::string text(ReceiveNumber(world, rank), '\0');
      world.Receive(BytesOf(text), rank).Wait();
      body(rank, text);
    } else if (world.rank() == 0) {
      body(0, own);
    }
    world.Barrier().Wait();
  }
}

}  // namespace

int64_t ClockAhead(Communicator& world) {
  constexpr int kQuestions = 16;
  if (world.rank() > 0) {
    for (int i = 0; i < kQuestions; ++i) {
      ReceiveNumber(world, 0);
      SendNumber(world, SteadyClockNs(), 0);
    }
    return ReceiveNumber(world, 0);
  }
  for (int rank = 1; rank < world.size(); ++rank) {
    SendNumber(world, AskAhead(world, rank, kQuestions), rank);
  }
  return 0;
}

StepTracer::StepTracer(const TraceOptions& options, Communicator& world, int64_t first_step,
                       int64_t last_step)
    : options_(options), world_(world) {
  const int64_t left = last_step - first_step + 1;
  const int64_t warm_up = std::clamp<int64_t>(left - options.num_steps, 0, kWarmUpSteps);
  begin_ = first_step + warm_up;
  end_ = std::min(begin_ + options.num_steps - 1, last_step);
}

void StepTracer::BeginStep(int64_t step) {
  step_ = step;
  if (!IsTraced(step)) return;
  if (step == begin_) {
    const int64_t ahead = ClockAhead(world_);
    int64_t origin = SteadyClockNs();
    world_.Broadcast(std::span(&origin, 1), 0).Wait();
    origin_ns_ = origin + ahead;
  }
  options_.recorder->BeginStep(step);
}

void StepTracer::EndStep() {
  if (IsTraced(step_)) options_.recorder->EndStep();
  last_ended_ = step_;
}

absl::StatusOr<std::vector<std::string>> StepTracer::Write() {
  is_written_ = true;
  if (last_ended_ < begin_) {
    return absl::FailedPreconditionError("no step was traced: the run ended before the first");
  }
  const absl::Status status = GatherEvents();
  StepTotals totals;
  AtRank0(world_, Encode(TotalsOf(*options_.recorder)),
          [&](int /*rank*/, const std::string& text) { AddTo(totals, Decode(text)); });
  options_.recorder->Clear();
  RETURN_IF_ERROR(status);
  if (world_.rank() > 0) return std::vector<std::string>();

  const double mean_ms =
      1e-6 * static_cast<double>(totals.steps_ns) / static_cast<double>(totals.num_steps);
  std::vector<std::string> lines = {absl::StrFormat(
      "trace: steps %d to %d of %d ranks in %s; %.1f ms a step, all ranks together:", begin_,
      last_ended_, world_.size(), options_.path, mean_ms)};
  for (std::string& line : Table(totals)) lines.push_back(std::move(line));
  if (totals.num_left_out > 0) {
    lines.push_back(absl::StrFormat(
        "warning: %d events had no room in the trace: trace fewer steps", totals.num_left_out));
  }
  return lines;
}

// Rank 0 holds the events of one rank at a time.
absl::Status StepTracer::GatherEvents() {
  absl::Status status;
  std::optional<TraceFile> file;
  if (world_.rank() == 0) {
    auto created = TraceFile::Create(options_.path);
    if (created.ok()) file.emplace(*std::move(created));
    status = created.status();
  }
  AtRank0(world_, EventsJson(*options_.recorder, world_.rank(), origin_ns_),
          [&](int /*rank*/, const std::string& events) {
            if (status.ok()) status = file->Add(events);
          });
  if (status.ok() && file) status = file->Commit();
  world_.Barrier().Wait();
  return status;
}

}  // namespace moebius
