// The exit codes of every command, and no others (docs/architecture.md).
#pragma once

#include "core/base/status.h"

namespace moebius {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;     // the run failed; the reason stands in status.json
inline constexpr int kExitBadInput = 2;   // before anything starts
inline constexpr int kExitInternal = 70;  // a programming error that was noticed
inline constexpr int kExitStopped =
    75;  // stopped on request after saving: run the same command again

// Bad input (arguments, files that are missing or damaged) against everything else.
inline int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kPermissionDenied:
      return kExitBadInput;
    default:
      return kExitFailed;
  }
}

}  // namespace moebius
