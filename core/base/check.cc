#include "core/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace moebius::internal {

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  message_ << file << ":" << line << ": check failed: " << condition << " ";
}

CheckFailure::~CheckFailure() {
  std::fprintf(stderr, "%s\n", message_.str().c_str());
  std::fflush(stderr);
  std::_Exit(70);
}

}  // namespace moebius::internal
