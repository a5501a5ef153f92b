#include "core/base/thread_pool.h"

#include <gtest/gtest.h>

#include <vector>

namespace moebius {
namespace {

TEST(ThreadPool, EveryIndexOnce) {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 1000}) {
      std::vector<int> calls(count);
      pool.For(count, [&](int64_t i) { ++calls[i]; });
      EXPECT_EQ(calls, std::vector<int>(count, 1));
    }
  }
}

TEST(ThreadPool, ManySmallJobs) {
  ThreadPool pool(2);
  int64_t sum = 0;
  for (int job = 0; job < 2000; ++job) {
    std::vector<int64_t> part(4);
    pool.For(4, [&](int64_t i) { part[i] = job; });
    for (const int64_t p : part) sum += p;
  }
  EXPECT_EQ(sum, 4 * 2000 * 1999 / 2);
}

TEST(ThreadPool, RangesCoverWithoutOverlap) {
  ThreadPool pool(2);
  std::vector<int> calls(1001);
  pool.ForRange(1001, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++calls[i];
  });
  EXPECT_EQ(calls, std::vector<int>(1001, 1));
}

TEST(ThreadPool, FlushesDenormals) {
  ThreadPool pool(2);
  std::vector<float> out(64, 1.0f);
  volatile float tiny = 1e-38f;
  pool.For(64, [&](int64_t i) { out[i] = tiny * 0.01f; });
  for (const float x : out) EXPECT_EQ(x, 0.0f);
}

}  // namespace
}  // namespace moebius
