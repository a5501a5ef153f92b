#include "parallel/shared_memory_transport.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <thread>

#include "parallel/collective_checks.h"
#include "parallel/message_communicator.h"

namespace moebius {
namespace {

using std::chrono::milliseconds;

// Ranks that are threads of this process, each with lanes of its own as if it were one.
class Ranks {
 public:
  explicit Ranks(int size) {
    const std::vector<ProcessId> processes(size, ThisProcess());
    for (int r = 0; r < size; ++r) {
      auto memory = HostMemory::Create(r, /*run=*/1, processes);
      CHECK(memory.ok()) << memory.status();
      memories_.push_back(*std::move(memory));
    }
    std::vector<int> files;
    for (const auto& memory : memories_) files.push_back(memory->file());
    for (const auto& memory : memories_) {
      const absl::Status status = memory->Connect(files);
      CHECK(status.ok()) << status;
    }
    for (const auto& memory : memories_) memory->CloseFile();
  }

  bool can_read() const { return memories_[0]->CanRead(1); }

  // Takes a rank's memory; once a rank.
  std::unique_ptr<SharedMemoryTransport> Transport(int rank, LongMessages long_messages) {
    std::vector<int> members(memories_.size());
    std::iota(members.begin(), members.end(), 0);
    return std::make_unique<SharedMemoryTransport>(
        0, members, MakeLaneEnds(std::move(memories_[rank]), long_messages), nullptr);
  }

 private:
  std::vector<std::unique_ptr<HostMemory>> memories_;
};

// Both ways in which a long message comes. Skips the one that this system forbids.
class Messages : public testing::TestWithParam<LongMessages> {
 protected:
  void SetUp() override {
    if (GetParam() == LongMessages::kReadIfAllowed && !ranks_.can_read()) {
      GTEST_SKIP() << "the system forbids reading another process";
    }
    first_ = ranks_.Transport(0, GetParam());
    second_ = ranks_.Transport(1, GetParam());
  }

  // The transports of both ranks, driven by this thread alone.
  Ranks ranks_{2};
  std::unique_ptr<SharedMemoryTransport> first_, second_;
};
INSTANTIATE_TEST_SUITE_P(Ways, Messages,
                         testing::Values(LongMessages::kReadIfAllowed, LongMessages::kInParts));

std::vector<std::byte> Bytes(size_t count, uint64_t seed) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>((i * 40'503 + seed) >> 5);
  return bytes;
}

bool IsDone(Transfer* transfer) {
  if (transfer == nullptr) return true;
  const absl::StatusOr<bool> done = transfer->Poll();
  EXPECT_TRUE(done.ok()) << done.status();
  return !done.ok() || *done;
}

// Polls until all are done; false if that takes more than `rounds`.
bool Finish(std::vector<std::unique_ptr<Transfer>>& transfers, int rounds = 10'000) {
  for (; rounds > 0 && !transfers.empty(); --rounds) {
    std::erase_if(transfers, [](const auto& transfer) { return IsDone(transfer.get()); });
  }
  return transfers.empty();
}

// Around the limits of short messages and of parts, and longer than a lane.
TEST_P(Messages, OfAnyLengthArrive) {
  for (const size_t count : {1, 15, 16, 17, 16 << 10, (16 << 10) + 1, 64 << 10, (64 << 10) + 1,
                             100'003, (5 << 20) + 7}) {
    SCOPED_TRACE(count);
    const std::vector<std::byte> sent = Bytes(count, count);
    std::vector<std::byte> received(count);
    std::vector<std::unique_ptr<Transfer>> transfers;
    transfers.push_back(second_->Receive(0, 3, received));
    transfers.push_back(first_->Send(1, 3, sent));
    ASSERT_TRUE(Finish(transfers));
    EXPECT_TRUE(sent == received);
  }
}

TEST_P(Messages, ComeInOrderWithinATagAndInAnyOrderOfTags) {
  constexpr int kEach = 5;
  constexpr size_t kLengths[] = {100, 40'000, 200'000};
  std::vector<std::vector<std::byte>> sent, received;
  for (int i = 0; i < kEach * 3; ++i) {
    sent.push_back(Bytes(kLengths[i / 3 % 3], i));
    received.emplace_back(sent.back().size());
  }
  std::vector<std::unique_ptr<Transfer>> sends, receives;
  for (int i = 0; i < kEach * 3; ++i) sends.push_back(first_->Send(1, i % 3, sent[i]));
  for (const int tag : {2, 0, 1}) {
    for (int i = tag; i < kEach * 3; i += 3) {
      receives.push_back(second_->Receive(0, tag, received[i]));
    }
    while (!receives.empty()) {
      for (const auto& send : sends) IsDone(send.get());
      std::erase_if(receives, [](const auto& receive) { return IsDone(receive.get()); });
    }
  }
  EXPECT_TRUE(Finish(sends));
  EXPECT_TRUE(sent == received);
}

// More short messages than a lane holds, and more long ones than can be announced: the others wait
// with the sender, and keep their order.
TEST_P(Messages, WaitWhereTheLaneIsFull) {
  for (const auto& [count, length] : {std::pair<int, size_t>{1000, 16 << 10}, {200, 70'000}}) {
    SCOPED_TRACE(length);
    std::vector<std::vector<std::byte>> sent, received;
    for (int i = 0; i < count; ++i) {
      sent.push_back(Bytes(length, i));
      received.emplace_back(length);
    }
    std::vector<std::unique_ptr<Transfer>> transfers;
    for (const auto& bytes : sent) transfers.push_back(first_->Send(1, 0, bytes));
    EXPECT_FALSE(Finish(transfers, 10)) << "nobody has received yet";
    for (auto& bytes : received) transfers.push_back(second_->Receive(0, 0, bytes));
    ASSERT_TRUE(Finish(transfers));
    EXPECT_TRUE(sent == received);
  }
}

// A message that nobody expects yet must not hold up one that is expected.
TEST_P(Messages, ThatComeEarlyLetOthersPass) {
  const std::vector<std::byte> early = Bytes(300'000, 1), expected = Bytes(50'000, 2);
  std::vector<std::byte> late(early.size()), received(expected.size());
  std::vector<std::unique_ptr<Transfer>> first, second;
  first.push_back(first_->Send(1, 1, early));
  second.push_back(first_->Send(1, 2, expected));
  second.push_back(second_->Receive(0, 2, received));
  ASSERT_TRUE(Finish(second));
  EXPECT_TRUE(received == expected);
  first.push_back(second_->Receive(0, 1, late));
  ASSERT_TRUE(Finish(first));
  EXPECT_TRUE(late == early);
}

TEST_P(Messages, OfAnotherLengthAreErrors) {
  for (const size_t count : {10, 100'000}) {
    const std::vector<std::byte> sent = Bytes(count, 1);
    std::vector<std::byte> received(count + 1);
    const auto send = first_->Send(1, static_cast<int>(count % 7), sent);
    const auto receive = second_->Receive(0, static_cast<int>(count % 7), received);
    EXPECT_EQ(receive->Poll().status().message(),
              absl::StrCat(count, " bytes were sent where ", count + 1, " are expected"));
  }
}

// What a failed wait leaves behind: the memory of both sides goes while the message is under way.
TEST_P(Messages, MayBeForgotten) {
  std::vector<std::unique_ptr<Transfer>> transfers;
  const std::vector<std::byte> sent = Bytes(3 << 20, 1);
  std::vector<std::byte> received(sent.size());
  auto send = first_->Send(1, 0, sent);
  {
    std::vector<std::byte> gone(sent.size());
    const auto receive = second_->Receive(0, 0, gone);
    EXPECT_EQ(IsDone(receive.get()), GetParam() == LongMessages::kReadIfAllowed);
    IsDone(send.get());
  }
  transfers.push_back(std::move(send));
  transfers.push_back(first_->Send(1, 1, sent));
  transfers.push_back(second_->Receive(0, 1, received));
  ASSERT_TRUE(Finish(transfers));
  EXPECT_TRUE(sent == received);
}

TEST(HostMemory, RefusesWhatIsNoInbox) {
  const std::vector<ProcessId> processes(2, ThisProcess());
  const auto first = HostMemory::Create(0, 1, processes);
  const auto older = HostMemory::Create(1, 2, processes);
  ASSERT_TRUE(first.ok() && older.ok());
  EXPECT_TRUE(absl::IsUnavailable((*first)->Connect({(*first)->file(), -1})));
  EXPECT_TRUE(absl::IsUnavailable((*first)->Connect({(*first)->file(), 0})));
  EXPECT_TRUE(absl::IsUnavailable((*first)->Connect({(*first)->file(), (*older)->file()})));
}

TEST(HostMemory, ReachesNoOtherHost) {
  std::vector<ProcessId> processes(3, ThisProcess());
  processes[1].host ^= 1;
  const auto memory = HostMemory::Create(0, 1, processes);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_FALSE((*memory)->Reaches(0));
  EXPECT_FALSE((*memory)->Reaches(1));
  EXPECT_TRUE((*memory)->Reaches(2));
}

class Collectives : public testing::TestWithParam<std::tuple<int, LongMessages>> {
 protected:
  void Run(const std::function<void(Communicator&)>& body) {
    const auto [size, long_messages] = GetParam();
    Ranks ranks(size);
    std::vector<int> members(size);
    std::iota(members.begin(), members.end(), 0);
    const std::shared_ptr<Board> board = Board::InMemory(size);
    std::vector<std::unique_ptr<Transport>> transports;
    for (int r = 0; r < size; ++r) transports.push_back(ranks.Transport(r, long_messages));
    std::vector<std::thread> threads;
    for (int r = 0; r < size; ++r) {
      threads.emplace_back([&, r] {
        Progress progress(r, board, WaitOptions{});
        progress.set_next_group(1);
        MessageCommunicator world("world", 0, members, std::move(transports[r]), &progress);
        body(world);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
};
INSTANTIATE_TEST_SUITE_P(Ways, Collectives,
                         testing::Combine(testing::Values(2, 3),
                                          testing::Values(LongMessages::kReadIfAllowed,
                                                          LongMessages::kInParts)));

TEST_P(Collectives, Reductions) { Run(CheckReductions); }
TEST_P(Collectives, LongReductions) { Run(CheckLongReductions); }
TEST_P(Collectives, Gathers) { Run(CheckGathers); }
TEST_P(Collectives, AllToAllV) { Run(CheckAllToAllV); }
TEST_P(Collectives, PointToPoint) { Run(CheckPointToPoint); }
TEST_P(Collectives, Splits) { Run(CheckSplits); }
TEST_P(Collectives, ManyUnderWay) { Run(CheckManyUnderWay); }

}  // namespace
}  // namespace moebius
