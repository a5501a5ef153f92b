#include "kernels/cuda/accelerator.h"

#include <sys/mman.h>

#include <cstring>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulation/stream.h"

namespace moebius::cuda {
namespace {

class EmulatedDevice final : public Accelerator {
 public:
  std::string Describe() const override { return "a GPU played by the CPU"; }

  double PeakFlops(DType) const override { return 0; }

  void* Map(int64_t bytes) override { return stream_.Map(bytes); }
  void Unmap(void* memory, int64_t bytes) override { stream_.Unmap(memory, bytes); }

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

 private:
  void WaitForWork() override { stream_.Run(); }

  mutable cuda_emulation::Stream stream_;
};

}  // namespace

int NumDevices(std::string*) { return 1; }

std::shared_ptr<Accelerator> OpenDevice(int) { return std::make_shared<EmulatedDevice>(); }

}  // namespace moebius::cuda
