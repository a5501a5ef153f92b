// The devices of the machine, as an Accelerator each: accelerator.cu by CUDA, and
// emulation/accelerator.cc by the CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "core/tensor/accelerator.h"

namespace moebius::cuda {

class Device : public Accelerator {
 public:
  virtual uint64_t number() const = 0;  // no other device of any host has it

  // DeviceCollectives::SetBeforeWait.
  void SetBeforeWait(std::function<void()> call) { before_wait_ = std::move(call); }

 protected:
  void BeforeWait() const {
    if (before_wait_ != nullptr) before_wait_();
  }

 private:
  std::function<void()> before_wait_;
};

int NumDevices(std::string* reason);
std::shared_ptr<Device> OpenDevice(int ordinal);

}  // namespace moebius::cuda
