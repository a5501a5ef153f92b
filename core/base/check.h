// A programming error ends the program, with exit code 70, its place and its reason. What the user
// or the world did wrong is an absl::Status, never this.
//
//   CHECK(x.defined()) << "no storage";
//   CHECK_EQ(x.size(0), T) << "one row per token";
#pragma once

#include <functional>
#include <sstream>
#include <string>

namespace moebius {

// Ends the process where nothing else can be done: prints the sentence, says the last words, exits
// at once. The first caller's sentence counts; other threads that call it wait for the end.
[[noreturn]] void EndProcess(const std::string& sentence, int exit_code);

// What EndProcess does before the exit, such as to record the reason in the run's status.
using LastWords = std::function<void(const std::string& sentence, int exit_code)>;
void SetLastWords(LastWords words);  // before threads start; replaces earlier ones

// For a plugin, which has a copy of this code: from now on it ends the process as its program does.
void EndProcessBy(void (*end_process)(const std::string& sentence, int exit_code));

}  // namespace moebius

namespace moebius::internal {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();  // EndProcess
  std::ostream& stream() { return message_; }

 private:
  std::ostringstream message_;
};

struct Voidify {
  void operator&(std::ostream&) {}
};

}  // namespace moebius::internal

#define CHECK(condition)                         \
  (condition) ? (void)0                          \
              : ::moebius::internal::Voidify() & \
                    ::moebius::internal::CheckFailure(__FILE__, __LINE__, #condition).stream()
#define MOEBIUS_CHECK_OP(a, op, b) CHECK((a)op(b)) << " " << (a) << " vs " << (b) << " "
#define CHECK_EQ(a, b) MOEBIUS_CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) MOEBIUS_CHECK_OP(a, !=, b)
#define CHECK_LT(a, b) MOEBIUS_CHECK_OP(a, <, b)
#define CHECK_LE(a, b) MOEBIUS_CHECK_OP(a, <=, b)
#define CHECK_GT(a, b) MOEBIUS_CHECK_OP(a, >, b)
#define CHECK_GE(a, b) MOEBIUS_CHECK_OP(a, >=, b)
