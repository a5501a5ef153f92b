#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace moebius::reference {
namespace {

bool Sees(const Tensor& document_ids, int64_t query, int64_t key) {
  if (!document_ids.defined()) return true;
  const auto id = document_ids.span<int32_t>();
  return id[query] >= 0 && id[query] == id[key];
}

double Dot(const double* x, const double* y, int64_t n) {
  return std::inner_product(x, x + n, y, 0.0);
}

void AddScaled(double* sum, double factor, const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += factor * x[i];
}

// A query: its row of q, and the row of its position among keys.
struct Query {
  int64_t row, position;
};

std::vector<Query> QueriesOf(const kernels::AttentionShape& shape, int64_t sequence) {
  const kernels::QueryChunks chunks = shape.query_chunks();
  std::vector<Query> queries;
  int64_t row = sequence * shape.queries_per_sequence();
  for (int i = 0; i < chunks.num_chunks; ++i) {
    const int64_t first = sequence * shape.sequence_length + chunks.begin[i];
    for (int64_t t = first; t < first + chunks.length; ++t) queries.push_back({row++, t});
  }
  return queries;
}

}  // namespace

void Attention(const kernels::AttentionArgs& args, Context& context) {
  const auto& [B, S, H, G, C, chunks] = args.shape;
  const double scale = 1 / std::sqrt(static_cast<double>(C));
  context.pool().For(B * H, [&, S = S, H = H, G = G, C = C](int64_t i) {
    const int64_t first = i / H * S, h = i % H, g = h / (H / G);
    const double *k = args.k.data<double>() + g * C, *v = args.v.data<double>() + g * C;
    std::vector<double> score(static_cast<size_t>(S));
    for (const auto& [row, t] : QueriesOf(args.shape, i / H)) {
      const double* q = args.q.data<double>() + (row * H + h) * C;
      double* y = args.y.data<double>() + (row * H + h) * C;
      double& logsumexp = args.logsumexp.data<double>()[row * H + h];
      std::fill_n(y, C, 0.0);
      logsumexp = 0;
      if (!Sees(args.document_ids, t, t)) continue;

      double max = -INFINITY, sum = 0;
      for (int64_t j = first; j <= t; ++j) {
        double& s = score[j - first];
        s = Sees(args.document_ids, t, j) ? scale * Dot(q, k + j * G * C, C) : -INFINITY;
        max = std::max(max, s);
      }
      for (int64_t j = first; j <= t; ++j) sum += std::exp(score[j - first] - max);
      logsumexp = max + std::log(sum);
      for (int64_t j = first; j <= t; ++j) {
        AddScaled(y, std::exp(score[j - first] - logsumexp), v + j * G * C, C);
      }
    }
  });
}

void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& context) {
  const auto& [B, S, H, G, C, chunks] = args.shape;
  const double scale = 1 / std::sqrt(static_cast<double>(C));
  // A key/value head gathers from all query heads that share it.
  context.pool().For(B * G, [&, S = S, H = H, G = G, C = C](int64_t i) {
    const int64_t first = i / G * S, g = i % G;
    const std::vector<Query> queries = QueriesOf(args.shape, i / G);
    const double *k = args.k.data<double>() + g * C, *v = args.v.data<double>() + g * C;
    double *dk = args.dk.data<double>() + g * C, *dv = args.dv.data<double>() + g * C;
    for (int64_t t = first; t < first + S; ++t) {
      if (!args.accumulate_k) std::fill_n(dk + t * G * C, C, 0.0);
      if (!args.accumulate_v) std::fill_n(dv + t * G * C, C, 0.0);
    }
    for (int64_t h = g * (H / G); h < (g + 1) * (H / G); ++h) {
      for (const auto& [row, t] : queries) {
        const int64_t at = (row * H + h) * C;
        const double *q = args.q.data<double>() + at, *y = args.y.data<double>() + at;
        const double* dy = args.dy.data<double>() + at;
        double* dq = args.dq.data<double>() + at;
        if (!args.accumulate_q) std::fill_n(dq, C, 0.0);
        const double logsumexp = args.logsumexp.data<double>()[row * H + h];
        const double delta = Dot(dy, y, C);
        for (int64_t j = first; j <= t; ++j) {
          if (!Sees(args.document_ids, t, j)) continue;
          const double p = std::exp(scale * Dot(q, k + j * G * C, C) - logsumexp);
          const double ds = p * (Dot(dy, v + j * G * C, C) - delta) * scale;
          AddScaled(dq, ds, k + j * G * C, C);
          AddScaled(dk + j * G * C, ds, q, C);
          AddScaled(dv + j * G * C, p, dy, C);
        }
      }
    }
  });
}

}  // namespace moebius::reference
