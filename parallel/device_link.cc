#include "parallel/device_link.h"

#include <utility>

namespace moebius {

DeviceLink::DeviceLink(DeviceCollectives& collectives, int rank, int size,
                       std::shared_ptr<DeviceCollectives::Id> id, Handle agreed)
    : collectives_(collectives),
      rank_(rank),
      size_(size),
      id_(std::move(id)),
      agreed_(std::move(agreed)) {}

void DeviceLink::Join() {
  group_ = collectives_.Join(*id_, rank_, size_, &failure_);
  has_joined_ = true;
}

absl::StatusOr<DeviceGroup*> DeviceLink::Poll() {
  if (!joining_.joinable()) {
    if (!agreed_.Poll()) return nullptr;
    agreed_.Wait();
    joining_ = std::jthread([this] { Join(); });
  }
  if (!has_joined_) return nullptr;
  if (group_ == nullptr) return absl::InternalError(failure_);
  if (std::string failure = group_->Failure(); !failure.empty()) {
    return absl::InternalError(std::move(failure));
  }
  return group_.get();
}

}  // namespace moebius
