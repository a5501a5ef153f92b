// From text to a dataset folder: reads the domains, holds documents out, trains the tokenizer on
// what is left, writes the shards.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/base/status.h"
#include "data/spec.h"

namespace moebius {

// Called now and then with what is being done and how many bytes of the input files are through.
using PrepareProgress =
    std::function<void(const std::string& what, int64_t done_bytes, int64_t total_bytes)>;

enum class PrepareOutcome { kWritten, kAlreadyThere };

// Makes spec.folder, whole or not at all: it is written beside and renamed. The same spec and files
// give the same bytes.
//
// Where the folder already holds a dataset of the same spec and the same input files (by name, size
// and checksum), nothing is done; one of another spec is kept, and FailedPrecondition names a field
// that differs. A folder that holds anything else is refused too.
//
// No document of the held-out shards occurs in a training shard, of its own domain or another:
// exact duplicates go to one side. Documents above 128 KiB are cut first (data/split.h). Errors
// name the file and place, or the domain.
//
// For one process at a time.
absl::StatusOr<PrepareOutcome> Prepare(const DataSpec& spec, const PrepareProgress& progress);

}  // namespace moebius
