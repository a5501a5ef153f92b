#include "tests/bench/cublas.h"

#include <dlfcn.h>

#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"

namespace moebius {
namespace {

// Of cublas_v2.h and library_types.h, in all versions since 11.
constexpr int kSuccess = 0;
constexpr int kPlain = 0, kTransposed = 1;  // cublasOperation_t
constexpr int kFloat = 0, kBFloat16 = 14;   // cudaDataType_t
constexpr int kSumsInFloat = 68;            // cublasComputeType_t: without TF32
constexpr int kDefaultAlgorithm = -1;       // cublasGemmAlgo_t

int TypeOf(const Tensor& x) {
  CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16) << NameOf(x.dtype());
  return x.dtype() == DType::kF32 ? kFloat : kBFloat16;
}

void* BytesOf(const Tensor& x) {
  return x.dtype() == DType::kF32 ? static_cast<void*>(x.device_data<float>())
                                  : static_cast<void*>(x.device_data<BF16>());
}

void* OpenFirst(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  return nullptr;
}

}  // namespace

struct Cublas::Functions {
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*get_version)(void* handle, int* version);
  int (*set_stream)(void* handle, void* stream);
  int (*product)(void* handle, int transpose_a, int transpose_b, int m, int n, int k,
                 const void* alpha, const void* a, int a_type, int lda, const void* b, int b_type,
                 int ldb, const void* beta, void* c, int c_type, int ldc, int compute,
                 int algorithm);
  int (*copy)(void* to, const void* from, size_t bytes, void* stream);

  // Whether all are there.
  bool Find() {
    void* const cublas = OpenFirst({"libcublas.so.13", "libcublas.so.12"});
    void* const driver = OpenFirst({"libcuda.so.1"});
    if (cublas == nullptr || driver == nullptr) return false;
    const auto find = [](void* library, const char* name, auto* function) {
      *reinterpret_cast<void**>(function) = dlsym(library, name);
      return *function != nullptr;
    };
    return find(cublas, "cublasCreate_v2", &create) && find(cublas, "cublasDestroy_v2", &destroy) &&
           find(cublas, "cublasGetVersion_v2", &get_version) &&
           find(cublas, "cublasSetStream_v2", &set_stream) &&
           find(cublas, "cublasGemmEx", &product) && find(driver, "cuMemcpyAsync", &copy);
  }
};

Cublas::Cublas(Context& context, std::unique_ptr<Functions> functions, void* handle)
    : context_(context), functions_(std::move(functions)), handle_(handle) {}

Cublas::~Cublas() { functions_->destroy(handle_); }

absl::StatusOr<std::unique_ptr<Cublas>> Cublas::Open(Context& context) {
  const Accelerator* accelerator = context.accelerator();
  if (accelerator == nullptr || accelerator->stream() == nullptr) {
    return absl::NotFoundError("cuBLAS computes in the stream of a GPU");
  }
  auto functions = std::make_unique<Functions>();
  if (!functions->Find()) {
    const char* reason = dlerror();
    return absl::NotFoundError(absl::StrCat("cuBLAS: ", reason != nullptr ? reason : "too old"));
  }
  void* handle = nullptr;
  if (const int error = functions->create(&handle); error != kSuccess) {
    return absl::NotFoundError(absl::StrCat("cublasCreate: error ", error));
  }
  CHECK_EQ(functions->set_stream(handle, accelerator->stream()), kSuccess);
  return absl::WrapUnique(new Cublas(context, std::move(functions), handle));
}

std::string Cublas::Describe() const {
  int version = 0;
  functions_->get_version(handle_, &version);
  return absl::StrCat("cuBLAS ", version / 10000, ".", version / 100 % 100, ".", version % 100);
}

// cuBLAS counts matrices by columns, so that it sees each as its transpose: c^T = b^T a^T.
void Cublas::Product(const Operand& a, const Operand& b, const Tensor& c) {
  const auto [m, n] = Dims<2>(c);
  const auto stride = [](const Tensor& x) { return static_cast<int>(x.shape()[1]); };
  const int64_t k = a.x.shape()[a.transposed ? 0 : 1];
  CHECK_EQ(b.x.shape()[b.transposed ? 1 : 0], k);
  const float one = 1, zero = 0;
  const int error = functions_->product(
      handle_, b.transposed ? kTransposed : kPlain, a.transposed ? kTransposed : kPlain,
      static_cast<int>(n), static_cast<int>(m), static_cast<int>(k), &one, BytesOf(b.x),
      TypeOf(b.x), stride(b.x), BytesOf(a.x), TypeOf(a.x), stride(a.x), &zero, BytesOf(c),
      TypeOf(c), stride(c), kSumsInFloat, kDefaultAlgorithm);
  CHECK_EQ(error, kSuccess) << "cublasGemmEx";
  context_.accelerator()->MarkBusy();
}

void Cublas::Copy(const Tensor& from, const Tensor& to) {
  CHECK_EQ(from.bytes(), to.bytes());
  CHECK_EQ(functions_->copy(BytesOf(to), BytesOf(from), static_cast<size_t>(from.bytes()),
                            context_.accelerator()->stream()),
           kSuccess)
      << "cuMemcpyAsync";
  context_.accelerator()->MarkBusy();
}

}  // namespace moebius
