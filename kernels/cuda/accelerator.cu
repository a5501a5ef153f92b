// Limited by nothing: memory and the streams of one device.
#include <cstring>
#include <string>

#include "kernels/cuda/accelerator.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.h"

namespace moebius::cuda {
namespace {

class CudaRecordedWork final : public RecordedWork {
 public:
  explicit CudaRecordedWork(cudaGraph_t graph) {
    CheckCuda(cudaGraphInstantiateWithFlags(&work_, graph, 0), "making recorded work ready");
  }
  ~CudaRecordedWork() override { cudaGraphExecDestroy(work_); }
  cudaGraphExec_t work() const { return work_; }

 private:
  cudaGraphExec_t work_ = nullptr;
};

class CudaEvent final : public DeviceEvent {
 public:
  // Behind what `stream` has; holds back what `device` is given on its own stream.
  CudaEvent(cudaStream_t stream, Device& device) : device_(device) {
    CheckCuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event");
    CheckCuda(cudaEventRecord(event_, stream), "recording an event");
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }

  bool IsDone() override {
    const cudaError_t error = cudaEventQuery(event_);
    if (error != cudaErrorNotReady) CheckCuda(error, "work beside the kernels");
    return error == cudaSuccess;
  }
  void HoldBackAccelerator() override {
    device_.CheckNotRecording("an event");
    HoldBack(static_cast<cudaStream_t>(device_.stream()));
    device_.MarkBusy();
  }
  void HoldBack(cudaStream_t stream) const {
    CheckCuda(cudaStreamWaitEvent(stream, event_, 0), "ordering streams");
  }

 private:
  Device& device_;
  cudaEvent_t event_ = nullptr;
};

class CudaSideStream final : public SideStream {
 public:
  explicit CudaSideStream(Device& device) : device_(device) {
    // Exchanges before kernels: what waits for one is on another device.
    int least = 0, greatest = 0;
    CheckCuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities");
    CheckCuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest),
              "making a stream");
  }
  ~CudaSideStream() override { cudaStreamDestroy(stream_); }

  void* stream() override { return stream_; }
  void Follow(const DeviceEvent& event) override {
    static_cast<const CudaEvent&>(event).HoldBack(stream_);
  }
  void Copy(const void* from, void* to, int64_t bytes) override {
    CheckCuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_),
              "copying memory");
  }
  std::unique_ptr<DeviceEvent> Mark() override {
    return std::make_unique<CudaEvent>(stream_, device_);
  }
  void Finish() override {
    CheckCuda(cudaStreamSynchronize(stream_), "waiting for work beside the kernels");
  }

 private:
  Device& device_;
  cudaStream_t stream_ = nullptr;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {
    CheckCuda(cudaSetDevice(ordinal), "choosing the device");
    CheckCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  }
  ~CudaDevice() override { cudaStreamDestroy(stream_); }

  std::string Describe() const override {
    cudaDeviceProp properties;
    CheckCuda(cudaGetDeviceProperties(&properties, ordinal_), "asking the device");
    return std::string(properties.name) + ", " + std::to_string(properties.totalGlobalMem >> 30) +
           " GiB";
  }

  // Of Hopper: products of an SM in a clock, on tensor cores for BF16.
  double PeakFlops(DType dtype) const override {
    int sms = 0, major = 0, kilohertz = 0;
    cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, ordinal_);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal_);
    cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, ordinal_);
    if (major != 9) return 0;
    return 1e3 * kilohertz * sms * (dtype == DType::kBF16 ? 4096 : 256);
  }

  void* Map(int64_t bytes) override {
    CheckCuda(cudaSetDevice(ordinal_), "choosing the device");
    void* memory = nullptr;
    return Mapped(cudaMalloc(&memory, static_cast<size_t>(bytes))) ? memory : nullptr;
  }
  void Unmap(void* memory, int64_t) override { cudaFree(memory); }

  void* MapHost(int64_t bytes) override {
    CheckCuda(cudaSetDevice(ordinal_), "choosing the device");
    void* memory = nullptr;
    const auto size = static_cast<size_t>(bytes);
    return Mapped(cudaHostAlloc(&memory, size, cudaHostAllocPortable)) ? memory : nullptr;
  }
  void UnmapHost(void* memory, int64_t) override { cudaFreeHost(memory); }

  void Clear(void* memory, int64_t bytes) override {
    CheckCuda(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_), "clearing memory");
    MarkBusy();
  }
  void Copy(const void* from, void* to, int64_t bytes) override {
    CheckCuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_),
              "copying memory");
    MarkBusy();
  }

  void* stream() const override { return stream_; }
  const kernels::Backend& kernels() const override { return kBackend; }

  uint64_t number() const override {
    cudaDeviceProp properties;
    CheckCuda(cudaGetDeviceProperties(&properties, ordinal_), "asking the device");
    uint64_t halves[2];
    static_assert(sizeof halves == sizeof properties.uuid);
    std::memcpy(halves, &properties.uuid, sizeof halves);
    return halves[0] ^ halves[1];
  }
  std::unique_ptr<DeviceEvent> Mark() override {
    CheckNotRecording("an event");
    return std::make_unique<CudaEvent>(stream_, *this);
  }
  std::unique_ptr<SideStream> MakeSideStream() override {
    CheckCuda(cudaSetDevice(ordinal_), "choosing the device");
    return std::make_unique<CudaSideStream>(*this);
  }

 private:
  static bool Mapped(cudaError_t error) {
    if (error == cudaErrorMemoryAllocation) return false;
    CheckCuda(error, "asking for memory");
    return true;
  }

  void WaitForWork() override {
    BeforeWait();
    CheckCuda(cudaStreamSynchronize(stream_), "waiting for kernels");
  }

  // Relaxed: memory may be mapped meanwhile.
  void StartRecording() override {
    CheckCuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "recording work");
  }
  std::unique_ptr<RecordedWork> FinishRecording() override {
    cudaGraph_t graph = nullptr;
    CheckCuda(cudaStreamEndCapture(stream_, &graph), "recording work");
    auto work = std::make_unique<CudaRecordedWork>(graph);
    cudaGraphDestroy(graph);
    return work;
  }
  void GiveRecorded(const RecordedWork& work) override {
    CheckCuda(cudaGraphLaunch(static_cast<const CudaRecordedWork&>(work).work(), stream_),
              "giving recorded work");
  }

  const int ordinal_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

int NumDevices(std::string* reason) {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) {
    *reason = "there is no NVIDIA driver";
    return 0;
  }
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    *reason = cudaGetErrorString(error);
    return 0;
  }
  if (count == 0) *reason = "there is no device";
  return count;
}

std::shared_ptr<Device> OpenDevice(int ordinal) { return std::make_shared<CudaDevice>(ordinal); }

}  // namespace moebius::cuda
