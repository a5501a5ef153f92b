// Limited by nothing: memory and the stream of one device.
#include <string>

#include "kernels/cuda/accelerator.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.h"

namespace moebius::cuda {
namespace {

class CudaDevice final : public Accelerator {
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

 private:
  static bool Mapped(cudaError_t error) {
    if (error == cudaErrorMemoryAllocation) return false;
    CheckCuda(error, "asking for memory");
    return true;
  }

  void WaitForWork() override { CheckCuda(cudaStreamSynchronize(stream_), "waiting for kernels"); }

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

std::shared_ptr<Accelerator> OpenDevice(int ordinal) {
  return std::make_shared<CudaDevice>(ordinal);
}

}  // namespace moebius::cuda
