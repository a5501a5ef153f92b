#include "core/base/process.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

namespace moebius {
namespace {

// A child that does nothing, and what others know of it.
class Child {
 public:
  Child() {
    int pipe[2];
    EXPECT_EQ(::pipe(pipe), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const ProcessId self = ThisProcess();
      EXPECT_EQ(::write(pipe[1], &self, sizeof self), static_cast<ssize_t>(sizeof self));
      while (true) ::pause();
    }
    EXPECT_EQ(::read(pipe[0], &id_, sizeof id_), static_cast<ssize_t>(sizeof id_));
    for (const int end : pipe) ::close(end);
  }
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  void Send(int signal) const { ::kill(pid_, signal); }

  // Waits for a state that the child is about to reach.
  bool Reaches(ProcessState state) const {
    for (int i = 0; i < 3000 && StateOf(id_) != state; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return StateOf(id_) == state;
  }
  const ProcessId& id() const { return id_; }

 private:
  pid_t pid_ = 0;
  ProcessId id_;
};

TEST(Process, ThisOneRuns) {
  EXPECT_EQ(ThisProcess().number, ::getpid());
  EXPECT_NE(ThisProcess().host, 0u);
  EXPECT_EQ(StateOf(ThisProcess()), ProcessState::kRunning);
}

TEST(Process, IsStoppedAndGoesOn) {
  const Child child;
  EXPECT_EQ(StateOf(child.id()), ProcessState::kRunning);
  child.Send(SIGSTOP);
  EXPECT_TRUE(child.Reaches(ProcessState::kStopped));
  child.Send(SIGCONT);
  EXPECT_TRUE(child.Reaches(ProcessState::kRunning));
}

TEST(Process, HasEndedBeforeAndAfterItsParentAsks) {
  ProcessId id;
  {
    const Child child;
    id = child.id();
    child.Send(SIGKILL);
    EXPECT_TRUE(child.Reaches(ProcessState::kEnded));
  }
  EXPECT_EQ(StateOf(id), ProcessState::kEnded);
}

TEST(Process, ALaterOneWithTheSameNumberIsAnother) {
  ProcessId earlier = ThisProcess();
  --earlier.start;
  EXPECT_EQ(StateOf(earlier), ProcessState::kEnded);
}

TEST(Process, OfAnotherHostIsUnknown) {
  ProcessId elsewhere = ThisProcess();
  ++elsewhere.host;
  EXPECT_EQ(StateOf(elsewhere), ProcessState::kUnknown);
  EXPECT_EQ(StateOf(ProcessId{}), ProcessState::kUnknown);
}

}  // namespace
}  // namespace moebius
