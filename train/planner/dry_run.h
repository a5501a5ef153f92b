// A training step of one rank, run on kMeta: the code that trains, without data and without the
// other ranks. What it would allocate, compute and send is what is planned, so there is no second
// model of memory or work to keep true.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "configs/run.pb.h"
#include "core/base/status.h"
#include "parallel/dry_communicator.h"
#include "parallel/pipeline/executor.h"

namespace moebius {

// Bytes of one rank by what they are for; all but scratch and host add up to the peak. Those from
// parameters to states are what is there between two steps. What kernels on a CPU take for
// themselves, about half a MiB a thread, is not among them.
struct RankMemory {
  int64_t parameters = 0;   // master values; under ZeRO 3 with what is gathered of them
  int64_t weights = 0;      // packed for products, in the dtype of computing
  int64_t gradients = 0;    // main gradients
  int64_t states = 0;       // of the optimizer
  int64_t activations = 0;  // the rest of `peak`: kept for backward, and passing through
  int64_t buffers = 0;      // of messages on their way, in the rank's arena
  int64_t scratch = 0;      // the most that the communicator takes for its sums, beside the arena
  int64_t peak = 0;         // the most of the device tier together, at one moment
  int64_t host = 0;         // states in the host tier
};

struct DryRunObservers {
  WorkObserver* work = nullptr;
  CallObserver* calls = nullptr;
  PlanObserver* plan = nullptr;
};

// What of the device a dry run depends on.
struct DryRunDevice {
  int64_t chunk_elements = Context::Options{}.chunk_elements;
  bool packs_weights = true;
  bool reads_host_tier = true;
};

// A step of `rank`, of `num_ranks`, once its memory has settled. Routing is taken to be even.
// InvalidArgument names the field that does not fit. REQUIRES: the config is valid for so many
// ranks.
absl::StatusOr<RankMemory> DryRun(const RunConfig& config, int64_t tokenizer_vocab_size, int rank,
                                  int num_ranks, const DryRunObservers& observers = {},
                                  const DryRunDevice& device = {});

// What the arenas of a rank say of a step that has run.
RankMemory MemoryOf(Context& context, const Arena& messages);

}  // namespace moebius
