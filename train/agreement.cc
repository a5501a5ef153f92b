#include "train/agreement.h"

#include <algorithm>
#include <string>
#include <vector>

namespace moebius {

absl::Status Agree(Communicator& world, const absl::Status& mine) {
  const int32_t own_code = static_cast<int32_t>(mine.code());
  std::vector<int32_t> codes(world.size());
  int32_t sent = own_code;
  world.AllGather(std::span(&sent, 1), std::span(codes)).Wait();
  const auto failed = std::ranges::find_if(codes, [](int32_t code) { return code != 0; });
  if (failed == codes.end()) return absl::OkStatus();

  const int root = static_cast<int>(failed - codes.begin());
  std::string message(mine.message());
  int64_t length = std::ssize(message);
  world.Broadcast(std::span(&length, 1), root).Wait();
  message.resize(length);
  auto* bytes = reinterpret_cast<uint8_t*>(message.data());
  world.Broadcast(std::span(bytes, message.size()), root).Wait();
  const bool several = world.size() > 1 && root > 0;
  return absl::Status(static_cast<absl::StatusCode>(*failed),
                      several ? absl::StrCat("rank ", root, ": ", message) : message);
}

}  // namespace moebius
