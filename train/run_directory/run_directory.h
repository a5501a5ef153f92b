// The folder of a run: what lies where, who may write to it, and in which state the run is.
//
//   runs/<name>/
//     config.textproto        as resolved
//     status.json             RunStatus, replaced as a whole
//     metrics.jsonl  tb/      docs/formats/metrics.md
//     log/rank-000.txt        one a rank, all attempts
//     checkpoints/            docs/formats/checkpoint.md
//     report.html
//     .lock                   held while a run writes; the kernel lets go of it when the process
//                             ends
//     .status.lock            held while a process replaces status.json
#pragma once

#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "core/base/files.h"
#include "core/base/status.h"

namespace moebius {

// status.json.
struct RunStatus {
  std::string state = "running";     // "running", "done", "stopped" (resume me) or "failed"
  int64_t step = 0;                  // updates made
  int64_t num_steps = 0;             // to be made
  int attempt = 1;                   // how often the run was started
  std::string last_checkpoint = "";  // "step-00000100"; empty: none yet
  std::string exit_reason = "";      // one sentence; empty while running
  std::optional<int> exit_code = std::nullopt;  // docs/architecture.md; null while running
};

// The places in a run directory.
struct RunPaths {
  std::string root;

  std::string config() const { return root + "/config.textproto"; }
  std::string status() const { return root + "/status.json"; }
  std::string metrics() const { return root + "/metrics.jsonl"; }
  std::string tensorboard() const { return root + "/tb"; }
  std::string checkpoints() const { return root + "/checkpoints"; }
  std::string report() const { return root + "/report.html"; }
  std::string sample() const { return root + "/sample.txt"; }
  std::string log(int rank) const;
};

// NotFound: there is no status yet. DataLoss names the file and what is wrong with it.
absl::StatusOr<RunStatus> ReadRunStatus(const RunPaths& paths);

// Notes in status.json that the run could not go on; the rest stays as it was last recorded. Any
// rank may call it, several at once: the first failure on record stays. Errors are dropped, the
// process is ending.
void RecordFailure(const RunPaths& paths, const std::string& reason, int exit_code);

// A run directory in use. Rank 0 alone has one; the other ranks know the paths.
class RunDirectory {
 public:
  // Makes the folder if missing. FailedPrecondition: another process is using it.
  static absl::StatusOr<RunDirectory> Open(const std::string& root);

  const RunPaths& paths() const { return paths_; }
  int attempt() const { return attempt_; }  // from 1

  absl::Status WriteConfig(const std::string& text);
  // `attempt` is filled in. While the run goes on, a failure of this attempt that another rank has
  // recorded stays, and a power cut may bring back an older status.
  absl::Status WriteStatus(RunStatus status);

 private:
  RunDirectory(RunPaths paths, FileLock lock) : paths_(std::move(paths)), lock_(std::move(lock)) {}

  RunPaths paths_;
  FileLock lock_;
  int attempt_ = 1;
};

// A rank's log: lines with the time of day, for people. Thread-safe; several may have one file open
// and their lines follow one another.
class RunLog {
 public:
  static absl::StatusOr<std::unique_ptr<RunLog>> Open(const std::string& path);

  void Line(absl::string_view text);  // a line that cannot be written is lost

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  explicit RunLog(std::FILE* file) : file_(file) {}

  std::mutex mutex_;
  const std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace moebius
