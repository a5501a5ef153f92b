#include "tests/parity/parity_run.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "configs/load.h"
#include "core/base/check.h"
#include "parallel/thread_communicator.h"
#include "tests/testing/tiny_dataset.h"
#include "train/session.h"

namespace moebius {
namespace {

template <class T>
void CopyPieces(const Parameter& parameter, const MeshPosition& at, std::vector<double>* global) {
  const Shape& shape = parameter.placement.global_shape;
  const int64_t row = shape.num_elements() / shape[0];
  for (const Piece& piece : parameter.placement.Pieces(at)) {
    const T* from = parameter.value.data<T>() + piece.local_begin * row;
    std::copy_n(from, (piece.end[0] - piece.begin[0]) * row,
                global->begin() + piece.begin[0] * row);
  }
}

void Collect(Session& session, ParityCurve* curve) {
  const MeshPosition& at = session.mesh().position();
  for (const Parameter* parameter : session.model().store().parameters()) {
    auto& global = curve->parameters[parameter->name];
    global.resize(parameter->placement.global_shape.num_elements());
    if (!parameter->placement.IsFirstReplica(at)) continue;
    if (parameter->value.dtype() == DType::kF64) {
      CopyPieces<double>(*parameter, at, &global);
    } else {
      CopyPieces<float>(*parameter, at, &global);
    }
  }
}

void Train(Session& session, ParityCurve* curve) {
  for (int64_t step = 0; step < session.config().train().num_steps(); ++step) {
    const StepResult result = session.Step();
    CHECK(result.updated);
    if (curve == nullptr) continue;
    curve->loss.push_back(result.loss);
    curve->balance_loss.push_back(result.routing.balance_loss);
    curve->z_loss.push_back(result.routing.z_loss);
    curve->gradient_norm.push_back(result.gradient_norm);
  }
}

double RelativeDifference(const std::vector<double>& a, const std::vector<double>& b) {
  CHECK_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double scale = std::max(std::abs(a[i]), std::abs(b[i]));
    if (scale > 0) worst = std::max(worst, std::abs(a[i] - b[i]) / scale);
    if (std::isnan(a[i]) || std::isnan(b[i])) return std::numeric_limits<double>::infinity();
  }
  return worst;
}

}  // namespace

ParityCurve RunParityCell(const ParityCell& cell, const WrapWorld& wrap) {
  auto config = LoadRunConfig("configs/recipes/tiny.textproto", cell.overrides);
  CHECK(config.ok()) << config.status();
  const Dataset& dataset = TinyDataset();
  ParityCurve curve;
  std::mutex mutex;
  RunOnThreads(cell.ranks, [&](Communicator& world) {
    const std::unique_ptr<Communicator> wrapped = wrap ? wrap(world) : nullptr;
    auto session = Session::Create(*config, wrapped ? *wrapped : world, dataset, {});
    CHECK(session.ok()) << session.status();
    Train(**session, world.rank() == 0 ? &curve : nullptr);
    const std::lock_guard lock(mutex);
    Collect(**session, &curve);
  });
  return curve;
}

double CurveDifference(const ParityCurve& a, const ParityCurve& b) {
  return std::max({RelativeDifference(a.loss, b.loss),
                   RelativeDifference(a.balance_loss, b.balance_loss),
                   RelativeDifference(a.z_loss, b.z_loss),
                   RelativeDifference(a.gradient_norm, b.gradient_norm)});
}

double ParameterDifference(const ParityCurve& a, const ParityCurve& b) {
  CHECK_EQ(a.parameters.size(), b.parameters.size());
  double worst = 0;
  for (const auto& [name, x] : a.parameters) {
    const auto& y = b.parameters.at(name);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      difference += (x[i] - y[i]) * (x[i] - y[i]);
      norm += x[i] * x[i];
    }
    worst = std::max(worst, std::sqrt(difference / norm));
  }
  return worst;
}

}  // namespace moebius
