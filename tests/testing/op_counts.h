// How often each op ran. Of one rank: not for several threads.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "core/tensor/work.h"

namespace moebius::test {

class OpCounts final : public WorkObserver {
 public:
  void OpBegins(const Work& work) override { ++counts_[work.op]; }
  std::map<std::string, int> Take() { return std::exchange(counts_, {}); }  // since the last call

 private:
  std::map<std::string, int> counts_;
};

}  // namespace moebius::test
