// Messages between processes of one host, through memory that they share (host_memory.h).
//
// A short message goes into the lane of its receiver at once, and its send is done. A long one is
// announced; the receiver copies it out of the sender's memory in one piece, or where the system
// forbids that, the sender writes part after part into the lane while the receiver takes them out,
// each as it polls. A lane never holds what its reader cannot take: a message that comes before
// its receive is put aside. Nothing here waits.
//
// A process that ends leaves its messages under way for ever: who waits for it finds out as for any
// rank that is missing (progress.h).
#pragma once

#include <memory>
#include <vector>

#include "parallel/host_memory.h"
#include "parallel/message_transport.h"

namespace moebius {

// The ends of all lanes of this process; shared by the transports of its groups, and used by the
// rank's thread alone.
class LaneEnds;
enum class LongMessages { kReadIfAllowed, kInParts };
std::shared_ptr<LaneEnds> MakeLaneEnds(std::unique_ptr<HostMemory> memory,
                                       LongMessages long_messages = LongMessages::kReadIfAllowed);

class SharedMemoryTransport final : public Transport {
 public:
  // `members`: the group's ranks of the world. `others` carries the messages of members that
  // the memory does not reach; null if there are none.
  SharedMemoryTransport(int group, std::vector<int> members, std::shared_ptr<LaneEnds> ends,
                        std::unique_ptr<Transport> others);

  std::unique_ptr<Transfer> Send(int to, int tag, std::span<const std::byte> bytes) override;
  std::unique_ptr<Transfer> Receive(int from, int tag, std::span<std::byte> bytes) override;
  std::unique_ptr<Transport> Split(int group, const std::vector<int>& members) override;

 private:
  Transport& others();

  const int group_;
  const std::vector<int> members_;
  const std::shared_ptr<LaneEnds> ends_;
  const std::unique_ptr<Transport> others_;
};

}  // namespace moebius
