#include "parallel/collective_checks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/base/random.h"
#include "core/base/status.h"

namespace moebius {
namespace {

// Sizes around the limit of sums in one round, and ones that do not divide by the number of ranks.
constexpr int64_t kCounts[] = {0, 1, 3, 517, 4099};

// Many pieces, the last one short.
constexpr int64_t kLongCount = 150'001;

// Element i of rank r: magnitudes so mixed that another order of additions gives other bits.
template <class T>
T Value(int rank, int64_t i) {
  const RandomStream stream(7, "collectives");
  const uint64_t index = static_cast<uint64_t>(rank) << 32 | static_cast<uint64_t>(i);
  const double x = stream.Normal(index) * std::pow(10, static_cast<int>(i % 7) - 3 + rank % 2);
  if constexpr (std::is_same_v<T, BF16>) {
    return BF16(static_cast<float>(x));
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(x * 1000);
  } else {
    return static_cast<T>(x);
  }
}

template <class T>
std::vector<T> Values(int rank, int64_t count, int64_t first = 0) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = Value<T>(rank, first + i);
  return values;
}

template <class T>
T PlainSum(int size, int64_t i) {
  if constexpr (std::is_same_v<T, BF16>) {
    float sum = static_cast<float>(Value<T>(0, i));
    for (int r = 1; r < size; ++r) sum += static_cast<float>(Value<T>(r, i));
    return BF16(sum);
  } else {
    T sum = Value<T>(0, i);
    for (int r = 1; r < size; ++r) sum += Value<T>(r, i);
    return sum;
  }
}

template <class T>
T PlainMax(int size, int64_t i) {
  double most = -1e300;
  for (int r = 0; r < size; ++r) {
    if constexpr (std::is_same_v<T, BF16>) {
      most = std::max<double>(most, static_cast<float>(Value<T>(r, i)));
    } else {
      most = std::max<double>(most, static_cast<double>(Value<T>(r, i)));
    }
  }
  if constexpr (std::is_same_v<T, BF16>) {
    return BF16(static_cast<float>(most));
  } else {
    return static_cast<T>(most);
  }
}

template <class T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || !std::memcmp(a.data(), b.data(), a.size() * sizeof(T)));
}

template <class T>
void CheckReductionsOf(Communicator& world) {
  const int size = world.size();
  for (const int64_t count : kCounts) {
    SCOPED_TRACE(absl::StrCat(NameOf(kDTypeOf<T>), " x ", count, ", rank ", world.rank()));
    std::vector<T> sum(count), most(count);
    for (int64_t i = 0; i < count; ++i) sum[i] = PlainSum<T>(size, i);
    for (int64_t i = 0; i < count; ++i) most[i] = PlainMax<T>(size, i);

    std::vector<T> x = Values<T>(world.rank(), count);
    world.AllReduce(std::span(x)).Wait();
    EXPECT_TRUE(SameBits(x, sum));

    x = Values<T>(world.rank(), count);
    world.AllReduceMax(std::span(x)).Wait();
    EXPECT_TRUE(SameBits(x, most));

    std::vector<T> all = Values<T>(world.rank(), count * size), part(count);
    world.ReduceScatter(std::span(all), std::span(part)).Wait();
    for (int64_t i = 0; i < count; ++i) sum[i] = PlainSum<T>(size, world.rank() * count + i);
    EXPECT_TRUE(SameBits(part, sum));
  }
}

// The sum of BF16 that stays F32 is rounded nowhere.
void CheckUnroundedSums(Communicator& world) {
  for (const int64_t count : kCounts) {
    std::vector<BF16> all = Values<BF16>(world.rank(), count * world.size());
    std::vector<float> part(count), sum(count);
    world.ReduceScatter(std::span(all), std::span(part)).Wait();
    for (int64_t i = 0; i < count; ++i) {
      for (int r = 0; r < world.size(); ++r) {
        sum[i] += static_cast<float>(Value<BF16>(r, world.rank() * count + i));
      }
    }
    EXPECT_TRUE(SameBits(part, sum));
  }
}

}  // namespace

void CheckReductions(Communicator& world) {
  CheckReductionsOf<double>(world);
  CheckReductionsOf<float>(world);
  CheckReductionsOf<BF16>(world);
  CheckReductionsOf<int32_t>(world);
  CheckReductionsOf<int64_t>(world);
  CheckUnroundedSums(world);
}

void CheckLongReductions(Communicator& world) {
  const int size = world.size(), me = world.rank();
  const auto value = [](int rank, int64_t i) {  // cheap, and of magnitudes that differ by rank
    return static_cast<float>((i * 7919 + rank * 104'729) % 10'007) * (rank % 2 == 0 ? 1e3f : 0.1f);
  };
  const auto sum = [&](int64_t i) {
    float total = value(0, i);
    for (int r = 1; r < size; ++r) total += value(r, i);
    return total;
  };
  std::vector<float> x(kLongCount), all(kLongCount * size), part(kLongCount);
  for (int64_t i = 0; i < kLongCount; ++i) x[i] = value(me, i);
  for (int64_t i = 0; i < std::ssize(all); ++i) all[i] = value(me, i);
  Handle all_reduce = world.AllReduce(std::span(x));
  Handle reduce_scatter = world.ReduceScatter(std::span(all), std::span(part));
  reduce_scatter.Wait();
  all_reduce.Wait();
  int64_t num_wrong = 0;
  for (int64_t i = 0; i < kLongCount; ++i) {
    num_wrong += (x[i] != sum(i)) + (part[i] != sum(me * kLongCount + i));
  }
  EXPECT_EQ(num_wrong, 0) << "rank " << me;
}

void CheckGathers(Communicator& world) {
  const int size = world.size();
  for (const int64_t count : kCounts) {
    SCOPED_TRACE(count);
    std::vector<float> expected;
    for (int r = 0; r < size; ++r) {
      for (const float x : Values<float>(r, count)) expected.push_back(x);
    }
    std::vector<float> mine = Values<float>(world.rank(), count), all(count * size);
    world.AllGather(std::span(mine), std::span(all)).Wait();
    EXPECT_TRUE(SameBits(all, expected));

    for (int root = 0; root < size; ++root) {
      std::vector<float> x = Values<float>(world.rank(), count);
      world.Broadcast(std::span(x), root).Wait();
      EXPECT_TRUE(SameBits(x, Values<float>(root, count)));
    }
  }
}

// Rank s sends (s * size + r) * 5 % 7 rows to rank r, or, in the last round, all to rank 0: the
// parts are uneven, and some are empty.
void CheckAllToAllV(Communicator& world) {
  constexpr int64_t kRowSize = 3;
  const int size = world.size(), me = world.rank();
  for (const bool all_to_one : {false, true}) {
    const auto rows = [&](int from, int to) {
      return all_to_one ? (to == 0 ? 11 + from : 0) : (from * size + to) * 5 % 7;
    };
    const auto values = [&](int from, int to) {
      return Values<double>(from, rows(from, to) * kRowSize, to * 1000);
    };
    std::vector<int32_t> to_rank(size), from_rank(size);
    std::vector<double> send, expected;
    for (int r = 0; r < size; ++r) {
      to_rank[r] = rows(me, r);
      from_rank[r] = rows(r, me);
      for (const double x : values(me, r)) send.push_back(x);
      for (const double x : values(r, me)) expected.push_back(x);
    }
    std::vector<double> received(expected.size());
    world.AllToAllV({std::span(send), to_rank}, {std::span(received), from_rank}, kRowSize).Wait();
    EXPECT_TRUE(SameBits(received, expected)) << "rank " << me;
  }
}

void CheckPointToPoint(Communicator& world) {
  const int size = world.size(), me = world.rank();
  const int next = (me + 1) % size, previous = (me + size - 1) % size;
  if (size == 1) return;
  std::vector<int64_t> first = Values<int64_t>(me, 1000), second = Values<int64_t>(me, 1000, 5000);
  std::vector<int64_t> from_first(1000), from_second(1000);
  Handle receive_first = world.Receive(std::span(from_first), previous);
  Handle receive_second = world.Receive(std::span(from_second), previous);
  Handle send_first = world.Send(std::span(first), next);
  Handle send_second = world.Send(std::span(second), next);
  receive_second.Wait();
  receive_first.Wait();
  send_first.Wait();
  send_second.Wait();
  EXPECT_TRUE(SameBits(from_first, Values<int64_t>(previous, 1000)));
  EXPECT_TRUE(SameBits(from_second, Values<int64_t>(previous, 1000, 5000)));
}

void CheckSplits(Communicator& world) {
  std::vector<int> everyone, same_parity;
  for (int r = 0; r < world.size(); ++r) {
    everyone.push_back(r);
    if (r % 2 == world.rank() % 2) same_parity.push_back(r);
  }
  const auto parity = world.Split(same_parity, "parity");
  EXPECT_EQ(parity->name(), "parity");
  EXPECT_EQ(parity->size(), (world.size() + 1 - world.rank() % 2) / 2);
  EXPECT_EQ(parity->rank(), world.rank() / 2);
  for (int r = 0; r < parity->size(); ++r) {
    EXPECT_EQ(parity->members()[r], 2 * r + world.rank() % 2);
  }
  std::vector<int64_t> ranks = {world.rank()};
  parity->AllReduce(std::span(ranks)).Wait();
  EXPECT_EQ(ranks[0], std::accumulate(parity->members().begin(), parity->members().end(), 0));

  // A group of a group, and groups beside it that were split another number of times.
  std::unique_ptr<Communicator> pair;
  if (world.rank() % 2 == 0) {
    const int first = parity->rank() / 2 * 2;
    std::vector<int> two = {first};
    if (first + 1 < parity->size()) two.push_back(first + 1);
    pair = parity->Split(two, "pair");
  }
  const auto again = world.Split(everyone, "again");
  std::vector<int64_t> ones = {1};
  again->AllReduce(std::span(ones)).Wait();
  EXPECT_EQ(ones[0], world.size());
  if (pair != nullptr) {
    pair->AllReduce(std::span(ones)).Wait();
    EXPECT_EQ(ones[0], world.size() * pair->size());
  }
}

// Operations of two groups, started in one order and waited for in others.
void CheckManyUnderWay(Communicator& world) {
  std::vector<int> everyone(world.size());
  std::iota(everyone.begin(), everyone.end(), 0);
  const auto other = world.Split(everyone, "other");
  std::vector<std::vector<float>> x, y;
  for (int i = 0; i < 6; ++i) {
    x.push_back(Values<float>(world.rank(), 3000, i));
    y.push_back(Values<float>(world.rank(), 10, i));
  }
  std::vector<Handle> handles;
  for (int i = 0; i < 6; ++i) {
    handles.push_back(world.AllReduce(std::span(x[i])));
    handles.push_back(other->AllReduce(std::span(y[i])));
  }
  while (!handles[5].Poll()) {
  }
  if (world.rank() % 2 == 1) std::ranges::reverse(handles);
  for (Handle& handle : handles) handle.Wait();
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(x[i][2999], PlainSum<float>(world.size(), 2999 + i));
    EXPECT_EQ(y[i][9], PlainSum<float>(world.size(), 9 + i));
  }
  world.Barrier().Wait();
}

}  // namespace moebius
