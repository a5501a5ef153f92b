// One exchange between devices, from its start on the host until the device has done it.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "core/base/status.h"
#include "core/tensor/arena.h"
#include "kernels/device_collectives.h"
#include "parallel/device_link.h"
#include "parallel/message_transport.h"

namespace moebius {

class DeviceExchange {
 public:
  // What it gives to the devices. `scratch` is null if there is none.
  using Give = std::function<void(DeviceGroup& group, std::byte* scratch)>;

  // It begins when `start` is done, and what was started before it on the link, which outlives it.
  DeviceExchange(DeviceLink& link, std::unique_ptr<DeviceEvent> start,
                 std::shared_ptr<Storage> scratch, Give give)
      : link_(link),
        number_(link.NextNumber()),
        start_(std::move(start)),
        scratch_(std::move(scratch)),
        give_(std::move(give)) {}

  // Gives it to the device as soon as that is possible. True when the device has done it.
  absl::StatusOr<bool> Poll();

  // What stands behind it on the device; null: it has not been given.
  DeviceEvent* end() const { return end_.get(); }

  // What the accelerator is given from now on comes behind the end.
  void GiveBackScratch() { scratch_.reset(); }

  void Abandon() { link_.Abort(); }

 private:
  void Begin(DeviceGroup& group);

  DeviceLink& link_;
  const int64_t number_;
  std::unique_ptr<DeviceEvent> start_, end_;
  std::shared_ptr<Storage> scratch_;
  const Give give_;
};

// For Communicator::Carry.
std::unique_ptr<Transfer> CarrierOf(std::shared_ptr<DeviceExchange> exchange);

}  // namespace moebius
