#include "data/held_out_stream.h"

#include "data/window.h"

namespace moebius {

Sample HeldOutStream::Get(int64_t sample) const {
  return ReadWindow(shard_, sample * sequence_length_, sequence_length_);
}

}  // namespace moebius
