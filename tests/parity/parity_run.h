// Trains configs/recipes/tiny.textproto in some layout and keeps everything that two layouts must
// agree on.
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "train/session.h"

namespace moebius {

inline constexpr int kBucketBytes = 32 << 10;  // of all layouts: several buckets of each kind

// Overrides of the recipe, "path=value".
using Overrides = std::vector<std::string>;

// How the work is split: what may not change a number.
struct Layout {
  int ranks = 1;
  int expert_size = 1;
  int micro_batch_size = 4;
  int zero_stage = 0;
  Overrides more = {};  // "parallel.tensor_size=2"

  std::string ToString() const;  // "4 ranks, experts over 2, micro-batches of 4, ZeRO stage 1"
};

struct ParityCurve {
  std::vector<double> loss, balance_loss, z_loss, gradient_norm;  // by step
  std::vector<double> counts;                                     // pairs by step, layer and expert
  std::map<std::string, std::vector<double>> final_state;         // parameters and buffers, global
  // The smallest gap of any choice of experts, between the last chosen and the first not chosen.
  double min_margin = std::numeric_limits<double>::infinity();
};

// What a test of the test puts between a rank and its communicator.
using WrapWorld = std::function<std::unique_ptr<Communicator>(Communicator& world)>;

// A part of a training, and what its ranks do around it: restore a checkpoint, save one.
struct Episode {
  std::function<void(Session&)> begin = nullptr;        // before the first step
  std::function<void(Session&)> before_step = nullptr;  // before each step
  std::function<void(Session&)> end = nullptr;          // after the last step
  int64_t last_step = 0;                                // 0: the last of all
};

// All ranks of `world`, of which there are layout.ranks, call it together, with overrides that say
// what is trained; each gets the whole. By "run.device=CUDA" each computes on the device of tests
// (tests/testing/device_context.h), which they share; else on the CPU.
ParityCurve TrainOnRank(const Layout& layout, const Overrides& overrides, Communicator& world,
                        const WrapWorld& wrap = nullptr, const Episode& episode = {});

// The same on threads.
ParityCurve TrainOnThreads(const Layout& layout, const Overrides& overrides,
                           const WrapWorld& wrap = nullptr, const Episode& episode = {});

struct Tolerance {
  double curve, state;
};
inline constexpr Tolerance kDoubleTolerance = {.curve = 1e-10, .state = 1e-8};
inline constexpr Tolerance kSingleTolerance = {.curve = 1e-5, .state = 1e-5};

struct Difference {
  double curve = 0;  // largest relative one of any loss, balance loss, z-loss or gradient norm
  double loss = 0;   // the same without gradient norms
  double state = 0;  // largest relative L2 one of any tensor of the final state
  double moved_pairs = 0;  // pairs that went to another expert, over all steps

  bool Within(const Tolerance& tolerance) const;  // and no pair moved
  std::string ToString() const;
};

// NaN anywhere is an infinite difference.
Difference Compare(const ParityCurve& a, const ParityCurve& b);

}  // namespace moebius
