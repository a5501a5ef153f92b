#include "model/weight_order.h"

namespace moebius {

// At either end the pass may turn: what it would need then is kept.
void WeightOrder::ExpectForward(Tape& tape, size_t unit) const {
  if (unit + 1 < units_.size()) {
    tape.ExpectWeights(units_[unit].forward, units_[unit + 1].forward);
  } else if (unit > 0) {
    tape.ExpectWeights(units_[unit].forward, units_[unit - 1].backward);
  } else {
    tape.ExpectWeights(units_[unit].forward, {});
  }
}

void WeightOrder::ExpectBackward(Tape& tape, size_t unit) const {
  if (unit > 0) {
    tape.ExpectWeights(units_[unit].backward, units_[unit - 1].backward);
  } else if (units_.size() > 1) {
    tape.ExpectWeights(units_[unit].backward, units_[unit + 1].forward);
  } else {
    tape.ExpectWeights(units_[unit].backward, {});
  }
}

}  // namespace moebius
