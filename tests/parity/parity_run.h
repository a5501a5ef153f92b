// Trains configs/recipes/tiny.textproto for its 20 steps on thread ranks and keeps everything that two
// layouts must agree on.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace moebius {

struct ParityCell {
  int ranks = 1;
  std::vector<std::string> overrides;  // "path=value"
};

struct ParityCurve {
  std::vector<double> loss, balance_loss, z_loss, gradient_norm;  // by step
  std::map<std::string, std::vector<double>> parameters;          // final, global, by name
  double min_margin = 0;  // the smallest gap of any top-k decision of the run
  std::string ToString() const;  // the curves in columns
};

// What a test of the test puts between the ranks and their communicator.
using WrapWorld = std::function<std::unique_ptr<Communicator>(Communicator& world)>;

ParityCurve RunParityCell(const ParityCell& cell, const WrapWorld& wrap = nullptr);

// The largest relative difference of any step's loss, balance loss, z-loss and gradient norm.
double CurveDifference(const ParityCurve& a, const ParityCurve& b);

// The largest relative L2 difference of any tensor.
double ParameterDifference(const ParityCurve& a, const ParityCurve& b);

}  // namespace moebius
