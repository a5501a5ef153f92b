// What the outside may ask of a running training.
#pragma once

namespace moebius {

enum class Request { kNone = 0, kSave = 1, kStop = 2 };  // the larger one wins; kStop saves too

}  // namespace moebius
