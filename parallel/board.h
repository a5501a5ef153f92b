// Where each rank shows what it is doing, so that an error can say who is missing and who called
// something else. A rank publishes every collective it starts; the others look only when a wait
// takes long. Reading never blocks the writer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/base/status.h"
#include "core/tensor/dtype.h"

namespace moebius {

enum class Collective : uint8_t {
  kAllReduce,
  kAllReduceMax,
  kAllGather,
  kReduceScatter,
  kAllToAllV,
  kBroadcast,
  kBarrier,
  kPointToPoint,  // never on a board: its two ranks are known
};
const char* NameOf(Collective collective);  // "all-reduce"

// A collective as a rank called it. All but `order` must agree over the ranks of the group.
struct Call {
  Collective collective = Collective::kBarrier;
  DType dtype = DType::kU8;
  int root = 0;
  int64_t count = 0;     // elements of a rank; of a row for kAllToAllV
  int64_t sequence = 0;  // from 1, within the group
  int64_t order = 0;     // from 1, within the rank

  bool SameAs(const Call& other) const {
    return collective == other.collective && dtype == other.dtype && root == other.root &&
           count == other.count;
  }
  std::string ToString() const;  // "all-reduce 17 (4096 F32)"
};

class Board {
 public:
  static constexpr int kMaxGroups = 64;  // of one rank
  struct Page;                           // what one rank shows (board.cc)

  // Ranks that are threads of this process.
  static std::unique_ptr<Board> InMemory(int num_ranks);

  // Ranks that are processes: one file a rank in `directory`, which all hosts see. The file is
  // mapped by its writer: readers on the same host see it at once, others when the system has
  // written it back. `run` tells this run's files from older ones and is the same on every rank.
  static absl::StatusOr<std::unique_ptr<Board>> InFiles(const std::string& directory, int rank,
                                                        uint64_t run);

  virtual ~Board() = default;

  // REQUIRES: `rank` is the caller's own. Group numbers agree over the ranks of a group.
  void Publish(int rank, int group, const std::string& group_name, const Call& call);

  // The last call of `rank` in the group: sequence 0 if none is known.
  Call Latest(int rank, int group) const;

  // The call with this number, while it is among the last 16 of the group.
  std::optional<Call> At(int rank, int group, int64_t sequence) const;

  // Where `rank` was last seen: "in all-reduce 17 (4096 F32) of group data".
  std::string LastSeen(int rank) const;

 protected:
  virtual std::shared_ptr<Page> PageOf(int rank) const = 0;  // null if there is none
};

}  // namespace moebius
