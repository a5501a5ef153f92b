#include "train/checkpoint/checkpoint_writer.h"

#include <chrono>
#include <thread>
#include <utility>

#include "core/base/thread_pool.h"
#include "core/tensor/copy.h"
#include "train/checkpoint/commit.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(const Options& options,
                                                                           Arena* host) {
  CHECK_GE(options.keep_last, 1) << "the newest checkpoint is never removed";
  const bool first = options.ranks.rank == 0;
  const absl::Status own =
      first ? PrepareDirectory(options.directory, options.resumed_step) : absl::OkStatus();
  RETURN_IF_ERROR(AgreeOn(own, options.ranks));
  auto writer = std::unique_ptr<CheckpointWriter>(new CheckpointWriter(options, host));
  writer->last_step_ = options.resumed_step;
  return writer;
}

CheckpointWriter::~CheckpointWriter() {
  if (task_.valid()) task_.wait();
}

void CheckpointWriter::Save(const CheckpointContent& content) {
  CHECK(!busy()) << "the checkpoint of step " << step_ << " is still being written";
  if (content.step == last_step_) return;
  phase_ = Phase::kWriting;
  step_ = content.step;
  ++attempt_;
  task_ = std::async(std::launch::async, [copy = Snapshot(content), folder = TemporaryFolder(),
                                          rank = options_.ranks.rank] {
    RunOnAnyCore();  // not beside the thread that trains
    return WriteShare(copy, rank, folder);
  });
}

CheckpointContent CheckpointWriter::Snapshot(const CheckpointContent& content) {
  CheckpointContent copy = content;
  Accelerator* device = nullptr;
  for (CheckpointTensor& t : copy.tensors) {
    if (!t.first_replica || t.pieces.empty()) continue;
    const Tensor live = t.local;
    t.local =
        Tensor(live.dtype(), live.shape(), host_->Allocate(live.bytes(), "checkpoint.snapshot"));
    Copy(live, t.local);
    if (live.device().is_cuda()) device = live.storage()->accelerator();
  }
  if (device != nullptr) device->Wait();
  return copy;
}

std::string CheckpointWriter::TemporaryFolder() const {
  return absl::StrCat(options_.directory, "/.", CheckpointName(step_), ".tmp.", attempt_);
}

std::optional<CheckpointWriter::Result> CheckpointWriter::Poll() {
  if (!busy()) return std::nullopt;
  const RankAgreement& ranks = options_.ranks;
  const bool running =
      task_.valid() && task_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
  if (ranks.max(running ? 1 : 0) != 0) return std::nullopt;
  const absl::Status status = AgreeOn(task_.valid() ? task_.get() : absl::OkStatus(), ranks);

  if (status.ok() && phase_ == Phase::kWriting) {
    phase_ = Phase::kCommitting;
    if (ranks.rank == 0) {
      task_ = std::async(std::launch::async, [this, folder = TemporaryFolder()] {
        RunOnAnyCore();
        return CommitCheckpoint(folder, options_.directory, step_, options_.ranks.world_size,
                                options_.keep_last);
      });
    }
    return std::nullopt;
  }
  if (!status.ok() && ranks.rank == 0) RemoveTemporary(TemporaryFolder());
  phase_ = Phase::kIdle;
  if (status.ok()) last_step_ = step_;
  return Result{step_, absl::StrCat(options_.directory, "/", CheckpointName(step_)), status};
}

CheckpointWriter::Result CheckpointWriter::Wait() {
  CHECK(busy()) << "nothing to wait for";
  for (;;) {
    if (auto result = Poll()) return *std::move(result);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace moebius
