#include "kernels/cuda/accelerator.h"

#include <sys/mman.h>

#include <cstring>

#include "kernels/cuda/cuda.h"

namespace moebius::cuda {
namespace {

// A device whose kernels run where they are started.
class EmulatedDevice final : public Accelerator {
 public:
  std::string Describe() const override { return "a GPU played by the CPU"; }

  double PeakFlops(DType) const override { return 0; }

  void* Map(int64_t bytes) override {
    void* memory = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
  }
  void Unmap(void* memory, int64_t bytes) override { ::munmap(memory, static_cast<size_t>(bytes)); }

  void Clear(void* memory, int64_t bytes) override {
    std::memset(memory, 0, static_cast<size_t>(bytes));
    MarkBusy();
  }

  void* stream() const override { return nullptr; }
  const kernels::Backend& kernels() const override { return kBackend; }

 private:
  void WaitForWork() override {}
};

}  // namespace

int NumDevices(std::string*) { return 1; }

std::shared_ptr<Accelerator> OpenDevice(int) { return std::make_shared<EmulatedDevice>(); }

}  // namespace moebius::cuda
