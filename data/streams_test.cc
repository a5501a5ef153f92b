#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "data/held_out_stream.h"
#include "data/mixture_stream.h"

namespace moebius {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kSequence = 8;

// Documents of the given lengths; the tokens count up from 0.
Shard MakeShard(const std::string& name, const std::vector<int>& lengths) {
  const std::string prefix = testing::TempDir() + "/" + name;
  auto writer = ShardWriter::Create(prefix, 60000);
  EXPECT_TRUE(writer.ok());
  int32_t token = 0;
  for (const int length : lengths) {
    std::vector<int32_t> document;
    for (int i = 0; i < length; ++i) document.push_back(token++);
    EXPECT_TRUE(writer->Append(document).ok());
  }
  EXPECT_TRUE(writer->Finish().ok());
  return *Shard::Open(prefix, 60000);
}

bool Same(const Sample& a, const Sample& b) {
  return a.tokens == b.tokens && a.labels == b.labels && a.document_ids == b.document_ids &&
         a.positions == b.positions && a.loss_weights == b.loss_weights && a.domain == b.domain;
}

TEST(Apportion, SmallKnownAnswers) {
  EXPECT_THAT(Apportion(std::vector<double>{1}, 7), ElementsAre(7));
  EXPECT_THAT(Apportion(std::vector<double>{0.5, 0.25, 0.25}, 8), ElementsAre(4, 2, 2));
  EXPECT_THAT(Apportion(std::vector<double>{0.53, 0.24, 0.23}, 7), ElementsAre(3, 2, 2));
  EXPECT_THAT(Apportion(std::vector<double>{0.2, 0.8}, 0), ElementsAre(0, 0));
}

TEST(Apportion, SumsToTheCountNeverFallsAndFollowsTheShares) {
  const RandomStream random(3, "shares");
  for (uint64_t trial = 0; trial < 12; ++trial) {
    std::vector<double> shares;
    double total = 0;
    for (uint64_t d = 0; d < 3 + 2 * trial; ++d) {
      shares.push_back(trial % 3 == 0 ? 1 : std::pow(10.0, -4 * random.Uniform(trial * 100 + d)));
      total += shares.back();
    }
    for (double& share : shares) share /= total;
    std::vector<int64_t> previous(shares.size(), 0);
    for (const int64_t start : {int64_t{0}, int64_t{1000000007}}) {
      for (int64_t n = start; n < start + 500; ++n) {
        const std::vector<int64_t> counts = Apportion(shares, n);
        int64_t sum = 0;
        for (size_t d = 0; d < shares.size(); ++d) {
          ASSERT_GE(counts[d], previous[d]) << n;
          const double bound = 0.5 + shares[d] * static_cast<double>(shares.size()) / 2;
          ASSERT_NEAR(static_cast<double>(counts[d]), shares[d] * static_cast<double>(n), bound)
              << n;
          sum += counts[d];
        }
        ASSERT_EQ(sum, n);
        previous = counts;
      }
    }
  }
}

class MixtureTest : public testing::Test {
 protected:
  MixtureStream Stream(uint64_t seed = 5) const {
    return *MixtureStream::Create({{"a", &a_, 3}, {"b", &b_, 1}, {"c", &c_, 0.37}}, kSequence,
                                  seed);
  }
  const Shard a_ = MakeShard("a", {10, 5, 0, 100, 1, 34});  // 150 tokens: 18 windows
  const Shard b_ = MakeShard("b", {9});                     // the smallest that is legal
  const Shard c_ = MakeShard("c", std::vector<int>(400, 2));
};

TEST_F(MixtureTest, SamplesAreWindowsOfARing) {
  const MixtureStream stream = Stream();
  const int sizes[] = {150, 9, 800};
  for (int64_t i = 0; i < 300; ++i) {
    const Sample sample = stream.Get(i);
    ASSERT_EQ(std::ssize(sample.tokens), kSequence);
    for (size_t s = 0; s < kSequence; ++s) {
      ASSERT_EQ(sample.labels[s], (sample.tokens[s] + 1) % sizes[sample.domain]);
      if (s > 0) {
        ASSERT_EQ(sample.tokens[s], sample.labels[s - 1]);
      }
      ASSERT_EQ(sample.positions[s], static_cast<int>(s));
      ASSERT_EQ(sample.loss_weights[s], 1.0f);
    }
  }
}

TEST_F(MixtureTest, DocumentsAreNumberedWithinTheSample) {
  const MixtureStream stream = Stream();
  const std::set<int> begins[] = {{0, 10, 15, 115, 116}, {0}, {}};
  bool wrapped = false;
  for (int64_t i = 0; i < 300; ++i) {
    const Sample sample = stream.Get(i);
    int document = 0;
    for (size_t s = 0; s < kSequence; ++s) {
      const int token = sample.tokens[s];
      const bool start =
          sample.domain == 2 ? token % 2 == 0 : begins[sample.domain].contains(token);
      document += s > 0 && start;
      wrapped |= s > 0 && token == 0;
      ASSERT_EQ(sample.document_ids[s], document) << "sample " << i << " position " << s;
    }
  }
  EXPECT_TRUE(wrapped);
}

TEST_F(MixtureTest, SharesAreExactAfterEachBlock) {
  const MixtureStream stream = Stream();
  const double weights[] = {3, 1, 0.37};
  double counts[3] = {};
  for (int64_t i = 0; i < 3000; ++i) {
    ++counts[stream.Locate(i).domain];
    if ((i + 1) % 256 != 0) continue;
    for (int d = 0; d < 3; ++d) {
      EXPECT_NEAR(counts[d], weights[d] / 4.37 * static_cast<double>(i + 1), 1) << i;
    }
  }
}

TEST_F(MixtureTest, WithoutReplacementWithinAnEpoch) {
  const MixtureStream stream = Stream();
  std::vector<std::set<int64_t>> tokens(80);
  std::vector<std::vector<int64_t>> order(80);
  for (int64_t i = 0; i < 2000; ++i) {
    const MixtureStream::Draw draw = stream.Locate(i);
    if (draw.domain != 0) continue;
    const auto epoch = static_cast<size_t>(draw.epoch);
    ASSERT_TRUE(epoch == 0 || order[epoch - 1].size() == 18) << "an epoch began too early";
    order[epoch].push_back(draw.begin);
    for (int64_t s = 0; s < kSequence; ++s) tokens[epoch].insert((draw.begin + s) % 150);
  }
  std::set<std::vector<int64_t>> orders;
  for (size_t epoch = 0; order[epoch + 1].size() == 18; ++epoch) {
    EXPECT_EQ(tokens[epoch].size(), 18u * kSequence) << epoch;
    EXPECT_TRUE(orders.insert(order[epoch]).second) << epoch;
  }
  EXPECT_GT(orders.size(), 60u);
}

TEST_F(MixtureTest, ASampleIsAFunctionOfSeedAndIndex) {
  const MixtureStream forward = Stream(), backward = Stream(), other = Stream(6);
  std::vector<Sample> seen;
  for (int64_t i = 0; i < 600; ++i) seen.push_back(forward.Get(i));
  int same = 0;
  for (int64_t i = 599; i >= 0; --i) {
    ASSERT_TRUE(Same(backward.Get(i), seen[static_cast<size_t>(i)])) << i;
    same += Same(other.Get(i), seen[static_cast<size_t>(i)]);
  }
  EXPECT_LT(same, 60);
  EXPECT_EQ(forward.Get(int64_t{1} << 40).tokens, backward.Get(int64_t{1} << 40).tokens);
}

TEST_F(MixtureTest, OtherDomainsDoNotReorderADomain) {
  const MixtureStream alone = *MixtureStream::Create({{"a", &a_, 1}}, kSequence, 5);
  const MixtureStream mixed = Stream();
  int64_t of_a = 0;
  for (int64_t i = 0; i < 300; ++i) {
    const MixtureStream::Draw draw = mixed.Locate(i);
    if (draw.domain == 0) {
      EXPECT_EQ(draw.begin, alone.Locate(of_a++).begin);
    }
  }
}

TEST_F(MixtureTest, RefusesWhatCannotBeDrawn) {
  const auto message = [](std::vector<MixtureStream::Domain> domains, int64_t sequence_length) {
    return std::string(
        MixtureStream::Create(std::move(domains), sequence_length, 1).status().message());
  };
  EXPECT_THAT(message({{"b", &b_, 1}}, 9), HasSubstr("b has 9 training tokens"));
  EXPECT_THAT(message({{"a", &a_, 0}}, 8), HasSubstr("weight of a is 0"));
  EXPECT_THAT(message({}, 8), HasSubstr("no domain"));
}

TEST(HeldOutStream, PredictsEveryTokenOnceButTheFirst) {
  for (const int tokens : {0, 1, 2, 8, 9, 10, 17, 25}) {
    const Shard shard = MakeShard("held", {tokens / 3, tokens - tokens / 3});
    const HeldOutStream stream(shard, kSequence);
    std::vector<int32_t> predicted;
    for (int64_t i = 0; i < stream.num_samples(); ++i) {
      const Sample sample = stream.Get(i);
      ASSERT_EQ(std::ssize(sample.tokens), kSequence);
      for (size_t s = 0; s < kSequence; ++s) {
        ASSERT_EQ(sample.loss_weights[s] == 0, sample.document_ids[s] < 0);
        if (sample.document_ids[s] < 0) continue;
        EXPECT_EQ(sample.labels[s], sample.tokens[s] + 1);
        predicted.push_back(sample.labels[s]);
      }
    }
    ASSERT_EQ(std::ssize(predicted), stream.num_predicted());
    ASSERT_EQ(std::ssize(predicted), std::max(tokens - 1, 0));
    for (int i = 0; i < tokens - 1; ++i) EXPECT_EQ(predicted[static_cast<size_t>(i)], i + 1);
  }
}

TEST(HeldOutStream, DocumentsStartAgainInEachSample) {
  const Shard shard = MakeShard("restart", {3, 6, 4});
  const HeldOutStream stream(shard, 5);
  EXPECT_THAT(stream.Get(0).document_ids, ElementsAre(0, 0, 0, 1, 1));
  EXPECT_THAT(stream.Get(1).document_ids, ElementsAre(0, 0, 0, 0, 1));
  EXPECT_THAT(stream.Get(2).document_ids, ElementsAre(0, 0, -1, -1, -1));
}

}  // namespace
}  // namespace moebius
