#include "parallel/call.h"

#include "absl/strings/str_cat.h"

namespace moebius {

const char* NameOf(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
      return "all-reduce";
    case Collective::kAllReduceMax:
      return "all-reduce (maximum)";
    case Collective::kAllGather:
      return "all-gather";
    case Collective::kReduceScatter:
      return "reduce-scatter";
    case Collective::kAllToAllV:
      return "all-to-all";
    case Collective::kBroadcast:
      return "broadcast";
    case Collective::kBarrier:
      return "barrier";
    case Collective::kSend:
      return "send";
    case Collective::kReceive:
      return "receive";
  }
  return "?";
}

std::string Call::ToString() const {
  std::string text = absl::StrCat(NameOf(collective), " ", sequence);
  if (collective == Collective::kBarrier) return text;
  absl::StrAppend(&text, " (", count, " ", moebius::NameOf(dtype));
  if (collective == Collective::kAllToAllV) absl::StrAppend(&text, " a row");
  if (collective == Collective::kBroadcast) absl::StrAppend(&text, " from ", root);
  if (collective == Collective::kSend) absl::StrAppend(&text, " to rank ", root);
  if (collective == Collective::kReceive) absl::StrAppend(&text, " from rank ", root);
  return text + ")";
}

}  // namespace moebius
