#include "parallel/pipeline/schedule.h"

#include <algorithm>

#include "core/base/check.h"

namespace moebius {
namespace {

using Kind = Action::Kind;

// A stage's actions while they are written down. Each takes the next micro-batch of its chunk;
// those beyond the last micro-batch are left out.
class Actions {
 public:
  explicit Actions(const PipelineSpec& spec)
      : num_micro_batches_(spec.num_micro_batches), forward_(spec.num_chunks), backward_(forward_) {
    weights_ = forward_;
  }

  void Forward(int chunk) { Add(Kind::kForward, chunk, forward_); }
  void Backward(int chunk) { Add(Kind::kBackward, chunk, backward_); }
  void InputGradients(int chunk) { Add(Kind::kInputGradients, chunk, backward_); }
  void WeightGradients(int chunk) { Add(Kind::kWeightGradients, chunk, weights_); }

  int num_forward(int chunk) const { return forward_[chunk]; }
  bool waits_for_weights(int chunk) const { return weights_[chunk] < backward_[chunk]; }
  std::vector<Action> list() const { return list_; }

 private:
  void Add(Kind kind, int chunk, std::vector<int>& next) {
    const int micro_batch = next[chunk]++;
    if (micro_batch < num_micro_batches_) list_.push_back({kind, chunk, micro_batch});
  }

  const int num_micro_batches_;
  std::vector<int> forward_, backward_, weights_;  // by chunk: the next micro-batch
  std::vector<Action> list_;
};

template <class Body>
void Repeat(int count, Body body) {
  for (int i = 0; i < count; ++i) body();
}

std::vector<Action> GPipe(const PipelineSpec& spec) {
  Actions actions(spec);
  Repeat(spec.num_micro_batches, [&] { actions.Forward(0); });
  Repeat(spec.num_micro_batches, [&] { actions.Backward(0); });
  return actions.list();
}

std::vector<Action> OneForwardOneBackward(const PipelineSpec& spec, int stage) {
  const int m = spec.num_micro_batches;
  const int warmup = std::min(spec.num_stages - 1 - stage, m);
  Actions actions(spec);
  Repeat(warmup, [&] { actions.Forward(0); });
  Repeat(m - warmup, [&] {
    actions.Forward(0);
    actions.Backward(0);
  });
  Repeat(warmup, [&] { actions.Backward(0); });
  return actions.list();
}

// p micro-batches through one chunk after the other; backward runs through the chunks in reverse.
std::vector<Action> Interleaved(const PipelineSpec& spec, int stage) {
  const int p = spec.num_stages, v = spec.num_chunks;
  const int total = spec.num_micro_batches * v;
  const int warmup = std::min(2 * (p - 1 - stage) + (v - 1) * p, total);
  const auto forward_chunk = [&](int i) { return i / p % v; };
  const auto backward_chunk = [&](int i) { return v - 1 - forward_chunk(i); };
  Actions actions(spec);
  for (int i = 0; i < warmup; ++i) actions.Forward(forward_chunk(i));
  for (int i = warmup; i < total; ++i) {
    actions.Forward(forward_chunk(i));
    actions.Backward(backward_chunk(i - warmup));
  }
  for (int i = total - warmup; i < total; ++i) actions.Backward(backward_chunk(i));
  return actions.list();
}

// 1F1B whose weight gradients lag: stage s runs them s micro-batches late, and the last of them
// where 1F1B waits for gradients.
std::vector<Action> ZeroBubbleH1(const PipelineSpec& spec, int stage) {
  const int m = spec.num_micro_batches;
  const int warmup = spec.num_stages - 1 - stage;
  Actions actions(spec);
  Repeat(warmup, [&] { actions.Forward(0); });
  for (int i = 0; i < m; ++i) {
    if (i < m - warmup) actions.Forward(0);
    actions.InputGradients(0);
    if (i >= stage) actions.WeightGradients(0);
  }
  Repeat(stage, [&] { actions.WeightGradients(0); });
  return actions.list();
}

// A micro-batch goes down the V through the chunks 0 and up through the chunks 1. Each stage fills
// its 2p stashes, then runs forward and backward of both chunks in turn, and keeps its last weight
// gradients for the end. Fewer than 2p - 1 micro-batches: those of 2p - 1 that there are.
std::vector<Action> ZeroBubbleV(const PipelineSpec& spec, int stage) {
  const int p = spec.num_stages;
  const int m = std::max(spec.num_micro_batches, 2 * p - 1);
  Actions actions(spec);
  const auto backward = [&](int chunk) {
    actions.InputGradients(chunk);
    actions.WeightGradients(chunk);
  };
  Repeat(2 * (p - stage) - 1, [&] { actions.Forward(0); });
  Repeat(stage, [&] {
    actions.Forward(1);
    actions.Forward(0);
  });
  Repeat(p - stage, [&] {
    actions.Forward(1);
    backward(1);
  });
  while (actions.num_forward(1) < m) {
    if (actions.num_forward(0) < m) actions.Forward(0);
    backward(0);
    actions.Forward(1);
    backward(1);
  }
  Repeat(stage, [&] {
    actions.InputGradients(0);
    actions.InputGradients(1);
  });
  Repeat(p - stage, [&] { backward(0); });
  for (const int chunk : {1, 0}) {
    while (actions.waits_for_weights(chunk)) actions.WeightGradients(chunk);
  }
  return actions.list();
}

}  // namespace

const char* NameOf(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::kGPipe:
      return "GPipe";
    case ScheduleKind::k1F1B:
      return "1F1B";
    case ScheduleKind::kInterleaved1F1B:
      return "interleaved 1F1B";
    case ScheduleKind::kZeroBubbleH1:
      return "ZB-H1";
    case ScheduleKind::kZeroBubbleV:
      return "ZB-V";
  }
  return "";
}

absl::Status Validate(const PipelineSpec& spec) {
  const int p = spec.num_stages, v = spec.num_chunks, m = spec.num_micro_batches;
  const auto broken = [&](const auto&... rule) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipeline schedule ", NameOf(spec.schedule), ": ", rule...));
  };
  if (p < 1) return broken(p, " stages; there is at least 1");
  if (m < 1) return broken(m, " micro-batches; there is at least 1");
  switch (spec.schedule) {
    case ScheduleKind::kInterleaved1F1B:
      if (v < 2) return broken(v, " chunks of a stage; it needs 2 or more");
      if (m % p != 0) {
        return broken(m, " micro-batches; it needs a multiple of the ", p, " stages");
      }
      return absl::OkStatus();
    case ScheduleKind::kZeroBubbleV:
      if (v != 2) return broken(v, " chunks of a stage; it needs 2");
      return absl::OkStatus();
    case ScheduleKind::kZeroBubbleH1:
      if (m < p) return broken(m, " micro-batches; it needs as many as the ", p, " stages or more");
      break;
    case ScheduleKind::kGPipe:
    case ScheduleKind::k1F1B:
      break;
  }
  return v == 1 ? absl::OkStatus() : broken(v, " chunks of a stage; it has 1");
}

ChunkPlace PlaceOf(const PipelineSpec& spec, int virtual_stage) {
  const int p = spec.num_stages;
  ChunkPlace place{.stage = virtual_stage % p, .chunk = virtual_stage / p};
  const bool goes_up = spec.schedule == ScheduleKind::kZeroBubbleV && place.chunk == 1;
  if (goes_up) place.stage = p - 1 - place.stage;
  return place;
}

int VirtualStageOf(const PipelineSpec& spec, ChunkPlace place) {
  const int p = spec.num_stages;
  const bool goes_up = spec.schedule == ScheduleKind::kZeroBubbleV && place.chunk == 1;
  return place.chunk * p + (goes_up ? p - 1 - place.stage : place.stage);
}

std::string Action::ToString() const {
  const char* what = "";
  switch (kind) {
    case Kind::kForward:
      what = "forward";
      break;
    case Kind::kBackward:
      what = "backward";
      break;
    case Kind::kInputGradients:
      what = "input gradients";
      break;
    case Kind::kWeightGradients:
      what = "weight gradients";
      break;
    case Kind::kSendActivation:
      what = "sending the activation";
      break;
    case Kind::kReceiveActivation:
      what = "receiving the activation";
      break;
    case Kind::kSendGradient:
      what = "sending the gradient";
      break;
    case Kind::kReceiveGradient:
      what = "receiving the gradient";
      break;
  }
  return absl::StrCat(what, " of micro-batch ", micro_batch, ", chunk ", chunk);
}

std::vector<Action> ComputeActions(const PipelineSpec& spec, int stage) {
  switch (spec.schedule) {
    case ScheduleKind::kGPipe:
      return GPipe(spec);
    case ScheduleKind::k1F1B:
      return OneForwardOneBackward(spec, stage);
    case ScheduleKind::kInterleaved1F1B:
      return Interleaved(spec, stage);
    case ScheduleKind::kZeroBubbleH1:
      return ZeroBubbleH1(spec, stage);
    case ScheduleKind::kZeroBubbleV:
      return ZeroBubbleV(spec, stage);
  }
  CHECK(false) << "no such schedule";
}

}  // namespace moebius
