#include "core/base/check.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace moebius {
namespace {

constexpr int kInternalError = 70;

LastWords& Words() {
  static LastWords words;
  return words;
}

void (*end_process_of_program)(const std::string&, int) = nullptr;

}  // namespace

void SetLastWords(LastWords words) { Words() = std::move(words); }

void EndProcessBy(void (*end_process)(const std::string&, int)) {
  // Where the loader joins both copies, this is the program's already.
  if (end_process != EndProcess) end_process_of_program = end_process;
}

void EndProcess(const std::string& sentence, int exit_code) {
  if (end_process_of_program != nullptr) end_process_of_program(sentence, exit_code);
  static std::recursive_mutex ending;  // never let go of
  static bool failed_while_ending = false;
  ending.lock();
  std::fprintf(stderr, "moebius: %s\n", sentence.c_str());
  std::fflush(stderr);
  if (!std::exchange(failed_while_ending, true) && Words()) Words()(sentence, exit_code);
  std::_Exit(exit_code);
}

}  // namespace moebius

namespace moebius::internal {

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  message_ << file << ":" << line << ": check failed: " << condition << " ";
}

CheckFailure::~CheckFailure() { EndProcess(message_.str(), kInternalError); }

}  // namespace moebius::internal
