#include "train/run_directory/run_directory.h"

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace moebius {
namespace {

absl::Status MakeFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) return absl::OkStatus();
  return absl::ErrnoToStatus(error.value(), absl::StrCat(folder, ": cannot create"));
}

std::string ToJson(const RunStatus& status) {
  nlohmann::ordered_json json = {{"state", status.state},
                                 {"step", status.step},
                                 {"num_steps", status.num_steps},
                                 {"attempt", status.attempt},
                                 {"last_checkpoint", status.last_checkpoint},
                                 {"exit_reason", status.exit_reason},
                                 {"exit_code", nullptr}};
  if (status.exit_code) json["exit_code"] = *status.exit_code;
  return json.dump(2) + "\n";
}

// Held while a process looks at status.json and replaces it. Who holds it may be stopped, so nobody
// waits for long.
FileLock LockStatus(const RunPaths& paths) {
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    auto lock = FileLock::Acquire(paths.root + "/.status.lock");
    if (lock.ok()) return *std::move(lock);
    if (!absl::IsFailedPrecondition(lock.status())) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return FileLock();
}

}  // namespace

std::string RunPaths::log(int rank) const {
  return absl::StrFormat("%s/log/rank-%03d.txt", root, rank);
}

absl::StatusOr<RunStatus> ReadRunStatus(const RunPaths& paths) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(paths.status()));
  try {
    const auto json = nlohmann::json::parse(text);
    RunStatus status{.state = json.at("state").get<std::string>(),
                     .step = json.at("step").get<int64_t>(),
                     .num_steps = json.at("num_steps").get<int64_t>(),
                     .attempt = json.at("attempt").get<int>(),
                     .last_checkpoint = json.at("last_checkpoint").get<std::string>(),
                     .exit_reason = json.at("exit_reason").get<std::string>(),
                     .exit_code = std::nullopt};
    if (!json.at("exit_code").is_null()) status.exit_code = json["exit_code"].get<int>();
    return status;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat(paths.status(), ": ", error.what()));
  }
}

void RecordFailure(const RunPaths& paths, const std::string& reason, int exit_code) {
  const FileLock lock = LockStatus(paths);
  RunStatus status = ReadRunStatus(paths).value_or(RunStatus{});
  if (status.state == "failed") return;
  status.state = "failed";
  status.exit_reason = reason;
  status.exit_code = exit_code;
  // Readers see it at once: the process may not live until the disk has it. On a full disk there is
  // still the room that the old status had.
  const std::string json = ToJson(status);
  if (!ReplaceFile(paths.status(), json).ok()) {
    auto file = OutputFile::Create(paths.status());
    if (file.ok()) file->Write(json).IgnoreError();
  }
  SyncPath(paths.status()).IgnoreError();
}

absl::StatusOr<RunDirectory> RunDirectory::Open(const std::string& root) {
  RunDirectory run({root}, {});
  RETURN_IF_ERROR(MakeFolder(root + "/log"));
  ASSIGN_OR_RETURN(run.lock_, FileLock::Acquire(root + "/.lock"));
  const auto last = ReadRunStatus(run.paths_);
  if (last.ok()) run.attempt_ = last->attempt + 1;
  return run;
}

absl::Status RunDirectory::WriteConfig(const std::string& text) {
  return WriteFileAtomically(paths_.config(), text);
}

absl::Status RunDirectory::WriteStatus(RunStatus status) {
  status.attempt = attempt_;
  if (status.exit_code) return WriteFileAtomically(paths_.status(), ToJson(status));
  const FileLock lock = LockStatus(paths_);
  const auto recorded = ReadRunStatus(paths_);
  const bool failed = recorded.ok() && recorded->attempt == attempt_ && recorded->state == "failed";
  return failed ? absl::OkStatus() : ReplaceFile(paths_.status(), ToJson(status));
}

absl::StatusOr<std::unique_ptr<RunLog>> RunLog::Open(const std::string& path) {
  RETURN_IF_ERROR(MakeFolder(std::filesystem::path(path).parent_path().string()));
  std::FILE* file = std::fopen(path.c_str(), "ae");
  if (file == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot open"));
  }
  return std::unique_ptr<RunLog>(new RunLog(file));
}

void RunLog::Line(absl::string_view text) {
  const std::string time =
      absl::FormatTime("%Y-%m-%d %H:%M:%E3S", absl::Now(), absl::LocalTimeZone());
  const std::string line = absl::StrCat(time, " ", text, "\n");
  const std::lock_guard lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), file_.get());
  std::fflush(file_.get());
}

}  // namespace moebius
