#include "tests/bench/onednn.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>

#include <dnnl.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/bench/machine.h"

namespace moebius {
namespace {

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

// OpenMP keeps the threads of its first team. The caller is one of them; the pool has pinned it.
void StartThreads(int num_threads) {
  omp_set_dynamic(0);
  omp_set_num_threads(num_threads);
#pragma omp parallel
  {
    const auto i = static_cast<size_t>(omp_get_thread_num());
    if (i > 0 && AllowedCores().size() >= static_cast<size_t>(omp_get_num_threads())) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(AllowedCores()[i], &set);
      (void)::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
    }
  }
}

struct Runtime {
  explicit Runtime(int num_threads) { StartThreads(num_threads); }
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
};

Runtime& TheRuntime(Context& context) {
  static auto* const runtime = new Runtime(context.pool().num_threads());
  return *runtime;
}

Type TypeOf(const Tensor& x) { return x.dtype() == DType::kBF16 ? Type::bf16 : Type::f32; }

}  // namespace

struct OneDnnProduct::Operand {
  Tensor tensor;  // row-major
  bool transposed = false;
  bool packed = false;  // in advance

  dnnl::memory::dims dims() const {
    const auto [rows, columns] = Dims<2>(tensor);
    return transposed ? dnnl::memory::dims{columns, rows} : dnnl::memory::dims{rows, columns};
  }
  dnnl::memory::desc plain() const {
    return {dims(), TypeOf(tensor), transposed ? Tag::ba : Tag::ab};
  }
};

struct OneDnnProduct::Parts {
  dnnl::stream stream;
  dnnl::matmul product;
  dnnl::memory a, b, c;
  std::vector<Tensor> tensors;  // in which they lie
};

OneDnnProduct OneDnnProduct::Of(const Operand& a, const Operand& b, const Tensor& c,
                                Context& context) {
  auto& [engine, stream] = TheRuntime(context);
  const dnnl::memory::desc c_desc = Operand{c}.plain();
  const dnnl::memory::desc b_asked =
      b.packed ? dnnl::memory::desc(b.dims(), TypeOf(a.tensor), Tag::any) : b.plain();
  const dnnl::matmul::primitive_desc primitive(dnnl::matmul::desc(a.plain(), b_asked, c_desc),
                                               engine);
  const dnnl::memory::desc b_desc = primitive.weights_desc();

  auto parts = std::make_unique<Parts>();
  Tensor b_tensor = b.tensor;
  if (b.packed) {
    b_tensor = context.Empty(DType::kU8, {static_cast<int64_t>(b_desc.get_size())}, "onednn.w");
    dnnl::memory from(b.plain(), engine, b.tensor.raw()), to(b_desc, engine, b_tensor.raw());
    dnnl::reorder(from, to).execute(stream, from, to);
    stream.wait();
  }
  parts->stream = stream;
  parts->product = dnnl::matmul(primitive);
  parts->a = dnnl::memory(a.plain(), engine, a.tensor.raw());
  parts->b = dnnl::memory(b_desc, engine, b_tensor.raw());
  parts->c = dnnl::memory(c_desc, engine, c.raw());
  parts->tensors = {a.tensor, b_tensor, c};
  return OneDnnProduct(std::move(parts));
}

OneDnnProduct OneDnnProduct::Forward(const Tensor& x, const Tensor& w, const Tensor& y,
                                     Context& context) {
  return Of({.tensor = x}, {.tensor = w, .transposed = true, .packed = true}, y, context);
}

OneDnnProduct OneDnnProduct::InputGradient(const Tensor& dy, const Tensor& w, const Tensor& dx,
                                           Context& context) {
  return Of({.tensor = dy}, {.tensor = w, .packed = true}, dx, context);
}

OneDnnProduct OneDnnProduct::WeightGradient(const Tensor& dy, const Tensor& x, const Tensor& dw,
                                            Context& context) {
  return Of({.tensor = dy, .transposed = true}, {.tensor = x}, dw, context);
}

void OneDnnProduct::Run() const {
  parts_->product.execute(
      parts_->stream,
      {{DNNL_ARG_SRC, parts_->a}, {DNNL_ARG_WEIGHTS, parts_->b}, {DNNL_ARG_DST, parts_->c}});
  parts_->stream.wait();
}

OneDnnProduct::OneDnnProduct(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
OneDnnProduct::OneDnnProduct(OneDnnProduct&&) noexcept = default;
OneDnnProduct::~OneDnnProduct() = default;

std::string OneDnnVersion() {
  const dnnl_version_t* version = dnnl_version();
  return absl::StrFormat("%d.%d.%d", version->major, version->minor, version->patch);
}

}  // namespace moebius
