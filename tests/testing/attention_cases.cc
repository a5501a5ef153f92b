#include "tests/testing/attention_cases.h"

#include <cmath>
#include <numeric>

#include "core/base/random.h"
#include "tests/testing/random_tensors.h"

namespace moebius::test {

Tensor DocumentIds(Context& context, const kernels::AttentionShape& shape, int mean_length) {
  const int64_t S = shape.sequence_length;
  std::vector<double> ids(shape.num_sequences * S);
  const RandomStream stream(3, "documents");
  int32_t id = 0;
  for (int64_t t = 0; t < std::ssize(ids); ++t) {
    if (t % S == 0 || stream.Below(static_cast<uint64_t>(t), mean_length) == 0) ++id;
    const bool padding = t % S >= S - S / 7 || (t / S == 1 && t % S < 3);
    ids[t] = padding ? -1 : id;
  }
  return FromValues(context, DType::kI32, {std::ssize(ids)}, ids);
}

Tensor AttentionCase::DocumentIds(Context& context) const {
  return mean_document > 0 ? test::DocumentIds(context, shape, mean_document) : Tensor();
}

void PrintTo(const AttentionCase& c, std::ostream* out) {
  const auto& [B, S, H, G, C, queries] = c.shape;
  *out << "B" << B << " S" << S << " H" << H << " G" << G << " C" << C << " documents of "
       << c.mean_document;
  for (int i = 0; i < queries.num_chunks; ++i) {
    *out << " queries " << queries.begin[i] << " + " << queries.length;
  }
}

const std::vector<AttentionCase>& AttentionCases() {
  static const std::vector<AttentionCase> cases = {
      {{2, 1, 1, 1, 1}, 0},
      {{1, 5, 2, 1, 3}, 0},
      {{2, 70, 4, 2, 24}, 0},
      {{1, 200, 3, 3, 64}, 0},
      {{1, 530, 2, 1, 20}, 0},
      {{1, 33, 2, 1, 256}, 0},
      {{3, 90, 4, 2, 16}, 20},
      {{2, 400, 2, 1, 8}, 100},
      {{2, 300, 1, 1, 33}, 2},
      {{2, 64, 2, 2, 32}, 1000},
      {{0, 16, 2, 1, 8}, 0},
      {{1, 301, 4, 2, 40}, 50},
      {{1, 1031, 4, 1, 8}, 1000},  // a head whose queries are cut into parts
      // Widths of a head that tensor cores take.
      {{2, 290, 4, 2, 64}, 60},
      {{1, 300, 2, 1, 64, {2, 75, {75, 225}}}, 0},
      {{1, 301, 2, 1, 128}, 0},
      {{2, 200, 2, 1, 128, {2, 40, {40, 150}}}, 50},
      // Chunks of queries: in one run, apart, side by side, none.
      {{2, 12, 2, 1, 8, {1, 4, {8}}}, 0},
      {{2, 400, 2, 1, 8, {2, 50, {50, 300}}}, 100},
      {{1, 530, 2, 2, 20, {2, 37, {0, 491}}}, 0},
      {{2, 96, 4, 2, 33, {2, 24, {24, 48}}}, 9},
      {{2, 30, 2, 1, 8, {1, 0, {30}}}, 0},
      {{0, 16, 2, 1, 8, {2, 4, {4, 8}}}, 0},
  };
  return cases;
}

AttentionMagnitudes MagnitudesOf(const kernels::AttentionGradientArgs& args, Context& context) {
  const auto& [B, S, H, G, C, queries] = args.shape;
  const kernels::QueryChunks chunks = args.shape.query_chunks();
  const auto zeros = [&](const Tensor& x) {
    return context.Zeros(DType::kF64, x.shape(), "magnitudes");
  };
  const AttentionMagnitudes sums = {zeros(args.q), zeros(args.q), zeros(args.k), zeros(args.k)};
  const double scale = 1 / std::sqrt(static_cast<double>(C));
  const auto id = [&](int64_t t) {
    return args.document_ids.defined() ? args.document_ids.data<int32_t>()[t] : 0;
  };
  for (int64_t i = 0; i < args.logsumexp.size(); ++i) {  // a query of one head
    const int64_t row = i / H, Q = args.shape.queries_per_sequence(), s = row % Q;
    const int64_t first = row / Q * S;
    const int64_t t = first + chunks.begin[s / chunks.length] + s % chunks.length;
    const int64_t at_q = i * C;
    for (int64_t j = first; j <= t && id(t) >= 0; ++j) {
      if (id(j) != id(t)) continue;
      const int64_t at_k = (j * G + i % H / (H / G)) * C;
      const auto dot = [&, C = C](const Tensor& x, const Tensor& y, int64_t at_y) {
        const double* x_row = x.data<double>() + at_q;
        return std::inner_product(x_row, x_row + C, y.data<double>() + at_y, 0.0);
      };
      const double p =
          std::exp(scale * dot(args.q, args.k, at_k) - args.logsumexp.data<double>()[i]);
      const double ds =
          scale * p * std::abs(dot(args.dy, args.v, at_k) - dot(args.dy, args.y, at_q));
      for (int64_t c = 0; c < C; ++c) {
        const auto add = [c](const Tensor& sum, int64_t at, double factor, const Tensor& x,
                             int64_t at_x) {
          sum.data<double>()[at + c] += factor * std::abs(x.data<double>()[at_x + c]);
        };
        add(sums.y, at_q, p, args.v, at_k);
        add(sums.dq, at_q, ds, args.k, at_k);
        add(sums.dk, at_k, ds, args.q, at_q);
        add(sums.dv, at_k, p, args.dy, at_q);
      }
    }
  }
  return sums;
}

}  // namespace moebius::test
