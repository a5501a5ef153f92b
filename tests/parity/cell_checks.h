// How a cell of the matrix is compared with one rank, in each precision: on one device both, which
// cell.trained says ("run.device=CUDA"; FP64 is computed by the CPU).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tests/parity/cells.h"
#include "tests/parity/routing_trace.h"

namespace moebius {

struct CellResult {
  std::string columns;  // of the table, behind the cell's name
  bool passed = false;
  double worst = 0;  // the largest relative difference; in BF16 the ratio
};

// Each may be called by several threads at once. What one rank trains is trained once where cells
// share it.
struct CellCheck {
  const char* precision;  // "FP64"
  const char* columns;    // their names, "curve | state | moved pairs"
  CellResult (*run)(const MatrixCell& cell);
};

// Curve and state within kDoubleTolerance, no pair moved.
extern const CellCheck kDoubleCheck;

// What ReplayResult::passed() says.
extern const CellCheck kSingleCheck;

// The median over 8 seeds of the distance of the loss curve from that of one rank in FP64, divided
// by that of one rank in BF16, is at most 2. Distance: root mean square over the steps.
extern const CellCheck kBrainCheck;

// The same over that many seeds.
CellResult CheckBrain(const MatrixCell& cell, int num_seeds);

// A cell in FP32 beside one rank, whose choices of experts it follows; and free-running.
inline constexpr Tolerance kReplayTolerance = {.curve = 1e-5, .state = 1e-4};
struct ReplayResult {
  Difference difference;             // replayed
  NearTies near_ties;                // of the choices that the layout would have made itself
  int64_t flips = 0;                 // choices of the free run that are others
  bool starts_with_near_tie = true;  // the first of those is one

  // That, losses and state within kReplayTolerance, near ties below their bound, and what their
  // routers saw within kReplayTolerance.state.
  bool passed() const;
};
// `begin`: done with every session before its first step.
ReplayResult CompareReplayed(const MatrixCell& cell,
                             const std::function<void(Session&)>& begin = nullptr);

}  // namespace moebius
