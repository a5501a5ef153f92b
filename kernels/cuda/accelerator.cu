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

  void* Map(int64_t bytes) override {
    CheckCuda(cudaSetDevice(ordinal_), "choosing the device");
    void* memory = nullptr;
    const cudaError_t error = cudaMallocManaged(&memory, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) return nullptr;
    CheckCuda(error, "asking for memory");
    return memory;
  }
  void Unmap(void* memory, int64_t) override { cudaFree(memory); }

  void Clear(void* memory, int64_t bytes) override {
    CheckCuda(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_), "clearing memory");
    MarkBusy();
  }

  void* stream() const override { return stream_; }
  const kernels::Backend& kernels() const override { return kBackend; }

 private:
  void WaitForWork() override { CheckCuda(cudaStreamSynchronize(stream_), "waiting for kernels"); }

  const int ordinal_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

int NumDevices(std::string* reason) {
  int count = 0;
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
