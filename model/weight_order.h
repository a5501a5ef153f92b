// In which order a chunk of a model uses its weights: unit after unit (embedding, blocks, head)
// forward, and back again. It tells the tape's weight source, so that a source that gathers weights
// does so for one unit while another computes, and holds those of two at most.
#pragma once

#include <vector>

#include "core/tape/tape.h"

namespace moebius {

class WeightOrder {
 public:
  struct Unit {
    std::vector<Parameter*> forward;   // what its forward leases,
    std::vector<Parameter*> backward;  // and its backward
  };

  // Before any Run.
  void Add(Unit unit) { units_.push_back(std::move(unit)); }

  // Runs `forward()` of a unit; marks the tape, which this outlives, for its backward.
  template <class Forward>
  void Run(Tape& tape, size_t unit, Forward forward) const {
    ExpectForward(tape, unit);
    forward();
    tape.RecordPoint([this, unit](Tape& passed) { ExpectBackward(passed, unit); });
  }

 private:
  void ExpectForward(Tape& tape, size_t unit) const;
  void ExpectBackward(Tape& tape, size_t unit) const;

  std::vector<Unit> units_;
};

}  // namespace moebius
