// Saves checkpoints while training goes on. One object a rank, all in step: every function is a
// collective of the ranks and is called from the thread that trains.
//
//   if (!writer->busy()) writer->Save(content);             // waits for a copy into host memory
//   ...
//   if (auto result = writer->Poll()) Report(*result);      // between steps
#pragma once

#include <future>
#include <memory>
#include <optional>
#include <string>

#include "core/tensor/arena.h"
#include "train/checkpoint/checkpoint.h"

namespace moebius {

class CheckpointWriter {
 public:
  struct Options {
    std::string directory;     // of the run's checkpoints; made if missing
    int64_t resumed_step = 0;  // the checkpoint that training goes on from; 0: from the start
    int keep_last = 2;         // >= 1
    RankAgreement ranks = {};
  };

  struct Result {
    int64_t step = 0;
    std::string path;
    absl::Status status;  // OK: it is on disk. Else what failed: a full disk, another rank
  };

  // Clears what a dead run left half written, and sets aside checkpoints newer than `resumed_step`
  // so that they are not taken for newer than those to come. REQUIRES: no other run writes to the
  // directory (the lock of the run directory). `host` is where tensors are copied to and outlives
  // the writer.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(const Options& options,
                                                                  Arena* host);
  ~CheckpointWriter();  // waits for its own thread; what is not yet committed is not there

  // Copies the tensors and begins to write them. Does nothing if the last checkpoint is of this
  // step. REQUIRES: not busy.
  void Save(const CheckpointContent& content);

  bool busy() const { return phase_ != Phase::kIdle; }

  // Goes on as far as can be without waiting. Returns each result once: when the checkpoint is on
  // disk, or when this attempt has failed on any rank: older checkpoints stay then.
  std::optional<Result> Poll();

  // Polls until nothing is in flight. REQUIRES: busy.
  Result Wait();

 private:
  enum class Phase { kIdle, kWriting, kCommitting };

  CheckpointWriter(const Options& options, Arena* host) : options_(options), host_(host) {}
  // `content` with copies of the tensors that this rank saves.
  CheckpointContent Snapshot(const CheckpointContent& content);
  std::string TemporaryFolder() const;

  const Options options_;
  Arena* const host_;
  Phase phase_ = Phase::kIdle;
  int64_t step_ = 0;       // in flight
  int64_t last_step_ = 0;  // committed
  int attempt_ = 0;
  std::future<absl::Status> task_;  // valid while this rank has something to do
};

}  // namespace moebius
