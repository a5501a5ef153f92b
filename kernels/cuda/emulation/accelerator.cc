#include "kernels/cuda/accelerator.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulation/stream.h"

namespace moebius::cuda {
namespace {

using cuda_emulation::Stream;

class EmulatedRecordedWork final : public RecordedWork {
 public:
  using Works = std::vector<Stream::Work>;

  explicit EmulatedRecordedWork(Works works)
      : works_(std::make_shared<const Works>(std::move(works))) {}
  ~EmulatedRecordedWork() override {
    CHECK_EQ(works_.use_count(), 1) << "recorded work ends before it is done";
  }
  void AddTo(Stream& stream) const {
    stream.Add([works = works_] {
      for (const Stream::Work& work : *works) work();
    });
  }

 private:
  const std::shared_ptr<const Works> works_;
};

class EmulatedEvent final : public DeviceEvent {
 public:
  EmulatedEvent(Stream& stream, Device& device) : event_(stream), device_(device) {}

  bool IsDone() override { return event_.IsDone(); }
  void HoldBackAccelerator() override {
    device_.CheckNotRecording("an event");
    HoldBack(*static_cast<Stream*>(device_.stream()));
    device_.MarkBusy();
  }
  void HoldBack(Stream& stream) const {
    stream.AddStep([event = event_] { return event.IsDone(); });
  }

 private:
  const cuda_emulation::Event event_;
  Device& device_;
};

class EmulatedSideStream final : public SideStream {
 public:
  EmulatedSideStream(cuda_emulation::Memory& memory, Device& device)
      : stream_(memory), device_(device) {}

  void* stream() override { return &stream_; }
  void Follow(const DeviceEvent& event) override {
    static_cast<const EmulatedEvent&>(event).HoldBack(stream_);
  }
  void Copy(const void* from, void* to, int64_t bytes) override {
    stream_.Add([=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
    if (is_early_) stream_.RunEarly();
  }
  std::unique_ptr<DeviceEvent> Mark() override {
    return std::make_unique<EmulatedEvent>(stream_, device_);
  }
  void Finish() override { stream_.Run(); }

 private:
  static bool IsEarly() {
    const char* when = std::getenv("MOEBIUS_EMULATED_SIDE_STREAMS");
    return when != nullptr && std::string_view(when) == "early";
  }

  Stream stream_;
  Device& device_;
  const bool is_early_ = IsEarly();
};

class EmulatedDevice final : public Device {
 public:
  explicit EmulatedDevice(int ordinal) : ordinal_(ordinal) {}

  std::string Describe() const override { return "a GPU played by the CPU"; }

  double PeakFlops(DType) const override { return 0; }

  void* Map(int64_t bytes) override { return memory_.Map(bytes); }
  void Unmap(void* memory, int64_t bytes) override { memory_.Unmap(memory, bytes); }

  void* MapHost(int64_t bytes) override {
    void* memory = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
  }
  void UnmapHost(void* memory, int64_t bytes) override {
    ::munmap(memory, static_cast<size_t>(bytes));
  }

  void Clear(void* memory, int64_t bytes) override {
    stream_.Add([=] { std::memset(memory, 0, static_cast<size_t>(bytes)); });
    MarkBusy();
  }
  void Copy(const void* from, void* to, int64_t bytes) override {
    stream_.Add([=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
    MarkBusy();
  }

  void* stream() const override { return &stream_; }
  const kernels::Backend& kernels() const override { return kBackend; }

  uint64_t number() const override {
    return static_cast<uint64_t>(::getpid()) << 32 | static_cast<uint64_t>(ordinal_);
  }
  std::unique_ptr<DeviceEvent> Mark() override {
    CheckNotRecording("an event");
    return std::make_unique<EmulatedEvent>(stream_, *this);
  }
  std::unique_ptr<SideStream> MakeSideStream() override {
    return std::make_unique<EmulatedSideStream>(memory_, *this);
  }

 private:
  void WaitForWork() override {
    BeforeWait();
    stream_.Run();
  }
  void StartRecording() override { stream_.BeginRecording(); }
  std::unique_ptr<RecordedWork> FinishRecording() override {
    return std::make_unique<EmulatedRecordedWork>(stream_.EndRecording());
  }
  void GiveRecorded(const RecordedWork& work) override {
    static_cast<const EmulatedRecordedWork&>(work).AddTo(stream_);
  }

  const int ordinal_;
  cuda_emulation::Memory memory_;
  mutable Stream stream_{memory_};
};

}  // namespace

// One, or as many as a test asks for.
int NumDevices(std::string*) {
  const char* count = std::getenv("MOEBIUS_EMULATED_GPUS");
  return count == nullptr ? 1 : std::atoi(count);
}

std::shared_ptr<Device> OpenDevice(int ordinal) {
  return std::make_shared<EmulatedDevice>(ordinal);
}

}  // namespace moebius::cuda
