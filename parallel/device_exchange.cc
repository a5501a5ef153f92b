#include "parallel/device_exchange.h"

namespace moebius {
namespace {

class Carrier final : public Transfer {
 public:
  explicit Carrier(std::shared_ptr<DeviceExchange> exchange) : exchange_(std::move(exchange)) {}
  absl::StatusOr<bool> Poll() override { return exchange_->Poll(); }
  void Abandon() override { exchange_->Abandon(); }

 private:
  const std::shared_ptr<DeviceExchange> exchange_;
};

}  // namespace

absl::StatusOr<bool> DeviceExchange::Poll() {
  if (end_ == nullptr && link_.BeginsNext(number_)) {
    ASSIGN_OR_RETURN(DeviceGroup* const group, link_.Poll());
    if (group == nullptr) return false;
    Begin(*group);
  }
  if (end_ == nullptr || !link_.EndsNext(number_)) return false;
  RETURN_IF_ERROR(link_.Poll().status());
  if (!end_->IsDone()) return false;
  link_.SetEnded();
  return true;
}

void DeviceExchange::Begin(DeviceGroup& group) {
  group.Follow(*start_);
  give_(group, scratch_ == nullptr ? nullptr : static_cast<std::byte*>(scratch_->data()));
  end_ = group.Mark();
  link_.SetBegun();
  start_.reset();
}

std::unique_ptr<Transfer> CarrierOf(std::shared_ptr<DeviceExchange> exchange) {
  return std::make_unique<Carrier>(std::move(exchange));
}

}  // namespace moebius
