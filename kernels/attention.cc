#include "kernels/attention.h"

#include "kernels/backend.h"

namespace moebius::kernels {
namespace {

void Check(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v,
           const Tensor& document_ids, const Tensor& y, const Tensor& logsumexp) {
  const auto& [B, S, H, G, C, queries] = shape;
  const int64_t Q = shape.queries_per_sequence();
  const QueryChunks chunks = shape.query_chunks();
  CHECK(chunks.num_chunks <= std::ssize(chunks.begin)) << chunks.num_chunks << " chunks";
  for (int i = 0; i < chunks.num_chunks; ++i) {
    CHECK(chunks.begin[i] >= 0 && chunks.length >= 0 && chunks.begin[i] + chunks.length <= S)
        << "queries from " << chunks.begin[i] << " on, " << chunks.length << " of " << S;
  }
  CHECK(G > 0 && H % G == 0) << H << " heads over " << G;
  CHECK(C > 0 && C <= 256) << "head_dim " << C;
  CHECK_EQ(q.shape(), (Shape{B * Q, H * C}));
  CHECK_EQ(k.shape(), (Shape{B * S, G * C}));
  CHECK_EQ(v.shape(), k.shape());
  CHECK_EQ(y.shape(), q.shape());
  CHECK_EQ(logsumexp.shape(), (Shape{B * Q, H}));
  CHECK(IsFloat(q.dtype())) << NameOf(q.dtype());
  CHECK(k.dtype() == q.dtype() && v.dtype() == q.dtype() && y.dtype() == q.dtype());
  CHECK(logsumexp.dtype() == (q.dtype() == DType::kF64 ? DType::kF64 : DType::kF32));
  if (document_ids.defined()) {
    CHECK_EQ(document_ids.shape(), Shape{B * S});
    CHECK(document_ids.dtype() == DType::kI32) << NameOf(document_ids.dtype());
  }
}

// Of `products` products of queries with what they see, which is all earlier positions: documents
// are not known on kMeta.
Work WorkOf(const char* op, const AttentionShape& shape, int products, DType dtype, int64_t bytes) {
  const QueryChunks chunks = shape.query_chunks();
  double seen = 0;  // by the queries of a sequence
  for (int i = 0; i < chunks.num_chunks; ++i) {
    const auto begin = static_cast<double>(chunks.begin[i]);
    const auto length = static_cast<double>(chunks.length);
    seen += length * (begin + (length + 1) / 2);
  }
  const auto width = static_cast<double>(shape.num_heads * shape.head_dim);
  return {.op = op,
          .kind = Work::Kind::kAttention,
          .dtype = dtype,
          .flops = 2.0 * products * static_cast<double>(shape.num_sequences) * seen * width,
          .bytes = bytes,
          .rows = shape.num_sequences * shape.queries_per_sequence()};
}

}  // namespace

void Attention(const AttentionArgs& args, Context& context) {
  Check(args.shape, args.q, args.k, args.v, args.document_ids, args.y, args.logsumexp);
  const int64_t bytes = 2 * (args.q.bytes() + args.k.bytes());
  const Work work = WorkOf("attention", args.shape, 2, args.q.dtype(), bytes);
  const OpScope op = context.Start(work);
  if (op.is_dry() || args.q.size() == 0) return;
  BackendFor(args.q.dtype(), context).attention(args, context);
}

void AttentionGradient(const AttentionGradientArgs& args, Context& context) {
  Check(args.shape, args.q, args.k, args.v, args.document_ids, args.y, args.logsumexp);
  for (const Tensor* gradient : {&args.dy, &args.dq, &args.dk, &args.dv}) {
    CHECK(gradient->dtype() == args.q.dtype()) << NameOf(gradient->dtype());
  }
  CHECK_EQ(args.dy.shape(), args.q.shape());
  CHECK_EQ(args.dq.shape(), args.q.shape());
  CHECK_EQ(args.dk.shape(), args.k.shape());
  CHECK_EQ(args.dv.shape(), args.v.shape());
  const int64_t bytes = 4 * (args.q.bytes() + args.k.bytes());
  const Work work = WorkOf("attention.gradient", args.shape, 5, args.q.dtype(), bytes);
  const OpScope op = context.Start(work);
  if (op.is_dry() || args.k.size() == 0) return;
  BackendFor(args.q.dtype(), context).attention_gradient(args, context);
}

}  // namespace moebius::kernels
