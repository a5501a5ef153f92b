#include "core/tensor/arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace moebius {
namespace {

TEST(Arena, SameSequenceSameAddresses) {
  Arena arena("device", kCpu);
  const auto step = [&] {
    std::vector<void*> addresses;
    const auto a = arena.Allocate(1000, "a");
    auto b = arena.Allocate(5000, "b");
    addresses.push_back(a->data());
    addresses.push_back(b->data());
    b.reset();
    const auto c = arena.Allocate(300, "c");
    addresses.push_back(c->data());
    return addresses;
  };
  const auto first = step();
  const int64_t mapped = arena.mapped_bytes();
  EXPECT_EQ(step(), first);
  EXPECT_EQ(arena.mapped_bytes(), mapped);
}

TEST(Arena, FreedNeighboursJoin) {
  Arena arena("device", kCpu);
  constexpr int64_t kBytes = int64_t{8} << 20;
  std::vector<std::shared_ptr<Storage>> parts;
  for (int i = 0; i < 4; ++i) parts.push_back(arena.Allocate(kBytes, "part"));
  const int64_t mapped = arena.mapped_bytes();
  for (const int i : {1, 3, 0, 2}) parts[i].reset();
  const auto whole = arena.Allocate(4 * kBytes, "whole");
  std::memset(whole->data(), 1, 4 * kBytes);
  EXPECT_EQ(arena.mapped_bytes(), mapped);
}

TEST(Arena, AccountsByName) {
  Arena arena("device", kCpu);
  auto x = arena.Allocate(64, "x");
  auto y = arena.Allocate(128, "y");
  x.reset();
  EXPECT_EQ(arena.total().bytes, 128);
  EXPECT_EQ(arena.total().peak_bytes, 192);
  EXPECT_EQ(arena.by_name()["x"].bytes, 0);
  EXPECT_EQ(arena.by_name()["x"].peak_bytes, 64);
}

TEST(Arena, AlignedAndOverlapFree) {
  Arena arena("device", kCpu);
  std::vector<std::shared_ptr<Storage>> live;
  for (int i = 0; i < 200; ++i) {
    live.push_back(arena.Allocate(1 + i * 37 % 500, "n"));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(live.back()->data()) % 64, 0u);
    std::memset(live.back()->data(), i & 255, static_cast<size_t>(live.back()->bytes()));
    if (i % 3 == 0) live.erase(live.begin() + i % static_cast<int>(live.size()));
  }
  for (const auto& storage : live) {
    const auto* bytes = static_cast<unsigned char*>(storage->data());
    EXPECT_EQ(bytes[0], bytes[storage->bytes() - 1]);
  }
}

TEST(Arena, TracesWhatWasHandedOut) {
  Arena arena("device", kCpu);
  const auto before = arena.Allocate(100, "before");
  arena.BeginTrace();
  auto first = arena.Allocate(1000, "first");
  char* const begin = static_cast<char*>(first->data());
  first.reset();
  const auto kept = arena.Allocate(64, "kept");  // where the first was
  ASSERT_EQ(kept->data(), begin);
  (void)arena.Allocate(0, "empty");
  const Arena::Trace trace = arena.EndTrace();
  EXPECT_EQ(trace.kept, std::vector<std::shared_ptr<Storage>>{kept});
  EXPECT_EQ(trace.given_back, (std::vector<std::pair<char*, int64_t>>{{begin + 64, 1024 - 64}}));
}

TEST(Arena, SaysWhetherTracedMemoryIsFree) {
  Arena arena("device", kCpu);
  arena.BeginTrace();
  const auto kept = arena.Allocate(64, "kept");
  auto used = arena.Allocate(6400, "used");
  const auto between = arena.Allocate(64, "between");
  arena.Allocate(640, "used too").reset();
  used.reset();
  const Arena::Trace trace = arena.EndTrace();
  EXPECT_TRUE(arena.IsFree(trace));
  for (const int64_t bytes : {64, 640, 6400}) {
    auto other = arena.Allocate(bytes, "other");
    EXPECT_FALSE(arena.IsFree(trace)) << bytes;
    other.reset();
    EXPECT_TRUE(arena.IsFree(trace)) << bytes;
  }
  const auto elsewhere = arena.Allocate(int64_t{1} << 20, "elsewhere");
  EXPECT_FALSE(arena.IsFree(trace)) << "it begins where \"used too\" was";
}

TEST(Arena, KeepsWhatATraceHolds) {
  Arena arena("device", kCpu);
  arena.BeginTrace();
  auto x = arena.Allocate(64, "x");
  void* const address = x->data();
  const Arena::Trace trace = arena.EndTrace();
  x.reset();
  EXPECT_NE(arena.Allocate(64, "y")->data(), address);
}

TEST(Arena, BeyondTheBudgetNamesWhoHoldsIt) {
  Arena arena("device", kCpu, 1000);
  const auto x = arena.Allocate(512, "experts.x");
  EXPECT_EXIT((void)arena.Allocate(600, "y"), testing::ExitedWithCode(1), "experts.x");
}

TEST(Arena, StorageOutlivesIt) {
  std::shared_ptr<Storage> x;
  {
    Arena arena("device", kCpu);
    x = arena.Allocate(100, "x");
  }
  std::memset(x->data(), 1, 100);
}

}  // namespace
}  // namespace moebius
