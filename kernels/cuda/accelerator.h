// The devices of the machine, as an Accelerator each: accelerator.cu by CUDA, and
// emulation/accelerator.cc by the CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "core/tensor/accelerator.h"
#include "kernels/device_collectives.h"

namespace moebius::cuda {

// Work of a device beside its own: streams go on independently but for the events between them.
class SideStream {
 public:
  virtual ~SideStream() = default;  // waits for nothing

  virtual void* stream() = 0;
  virtual void Follow(const DeviceEvent& event) = 0;  // what is added next begins when it is done
  virtual void Copy(const void* from, void* to, int64_t bytes) = 0;  // within the device
  virtual std::unique_ptr<DeviceEvent> Mark() = 0;                   // behind all of this
  virtual void Finish() = 0;  // returns when its work is done; any thread, which then alone uses it
};

class Device : public Accelerator {
 public:
  virtual uint64_t number() const = 0;  // no other device of any host has it
  virtual std::unique_ptr<DeviceEvent> Mark() = 0;
  virtual std::unique_ptr<SideStream>
  MakeSideStream() = 0;  // any thread, which uses the device then

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
