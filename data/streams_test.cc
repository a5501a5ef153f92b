#include <gtest/gtest.h>

#include <map>
#include <set>

#include "data/held_out_stream.h"
#include "data/mixture_stream.h"

namespace moebius {
namespace {

constexpr int64_t kSequence = 8;

// Documents of the given lengths; the tokens count up from 0.
Shard MakeShard(const std::string& name, const std::vector<int64_t>& lengths) {
  const std::string prefix = testing::TempDir() + "/" + name;
  auto writer = ShardWriter::Create(prefix, 60000);
  EXPECT_TRUE(writer.ok());
  int32_t token = 0;
  for (const int64_t length : lengths) {
    std::vector<int32_t> document;
    for (int64_t i = 0; i < length; ++i) document.push_back(token++);
    EXPECT_TRUE(writer->Append(document).ok());
  }
  EXPECT_TRUE(writer->Finish().ok());
  return *Shard::Open(prefix, 60000);
}

TEST(MixtureStream, WindowsOfADomainComeOnceAnEpoch) {
  const Shard shard = MakeShard("once", {kSequence * 50 + 1});
  const auto stream = MixtureStream::Create({{"a", &shard, 1}}, kSequence, 7);
  ASSERT_TRUE(stream.ok());
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::set<int32_t> first_tokens;
    for (int i = 0; i < 50; ++i) first_tokens.insert(stream->Get(epoch * 50 + i).tokens[0]);
    EXPECT_EQ(first_tokens.size(), 50u);
  }
}

TEST(MixtureStream, SharesAreExactOverManyBlocks) {
  const Shard shard = MakeShard("shares", {1000});
  const auto stream = MixtureStream::Create(
      {{"a", &shard, 1}, {"b", &shard, 2.5}, {"tiny", &shard, 0.0001}}, kSequence, 1);
  std::map<int, int64_t> count;
  constexpr int64_t kSamples = 1024 * 100;
  for (int64_t i = 0; i < kSamples; ++i) ++count[stream->Locate(i).domain];
  EXPECT_NEAR(count[0], kSamples / 3.5001, 3);
  EXPECT_NEAR(count[1], kSamples * 2.5 / 3.5001, 3);
  EXPECT_NEAR(count[2], kSamples * 0.0001 / 3.5001, 2);
}

TEST(MixtureStream, ASampleIsAFunctionOfSeedAndIndex) {
  const Shard shard = MakeShard("pure", {3000});
  const auto forward = MixtureStream::Create({{"a", &shard, 1}, {"b", &shard, 1}}, kSequence, 3);
  const auto backward = MixtureStream::Create({{"a", &shard, 1}, {"b", &shard, 1}}, kSequence, 3);
  const auto other = MixtureStream::Create({{"a", &shard, 1}, {"b", &shard, 1}}, kSequence, 4);
  std::vector<std::vector<int32_t>> seen(3000);
  for (int i = 0; i < 3000; ++i) seen[i] = forward->Get(i).tokens;
  int same = 0;
  for (int i = 2999; i >= 0; --i) {
    EXPECT_EQ(backward->Get(i).tokens, seen[i]);
    same += other->Get(i).tokens == seen[i];
  }
  EXPECT_LT(same, 100);
}

TEST(MixtureStream, LabelsFollowAndDocumentsAreMarked) {
  const Shard shard = MakeShard("labels", {3, 4, 0, 2});  // nine tokens: one window
  const auto stream = MixtureStream::Create({{"a", &shard, 1}}, kSequence, 1);
  const Sample sample = stream->Get(0);
  EXPECT_EQ(sample.tokens, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(sample.labels, (std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(sample.positions, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  ASSERT_EQ(sample.document_ids.size(), 8u);
  for (int s = 1; s < 8; ++s) {
    const bool begins = s == 3 || s == 7;
    EXPECT_EQ(sample.document_ids[s] > sample.document_ids[s - 1], begins) << s;
  }
}

TEST(MixtureStream, ATooShortDomainIsNamed) {
  const Shard shard = MakeShard("short", {kSequence});
  const auto stream = MixtureStream::Create({{"poems", &shard, 1}}, kSequence, 1);
  EXPECT_EQ(stream.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(stream.status().message().find("poems"), absl::string_view::npos);
}

TEST(HeldOutStream, PredictsEveryTokenOnceButTheFirst) {
  for (const int64_t tokens : {1, 2, 8, 9, 10, 17, 25}) {
    const Shard shard = MakeShard("held", {tokens});
    const HeldOutStream stream(shard, kSequence);
    std::vector<int32_t> predicted;
    for (int64_t i = 0; i < stream.num_samples(); ++i) {
      const Sample sample = stream.Get(i);
      ASSERT_EQ(std::ssize(sample.tokens), kSequence);
      for (int64_t s = 0; s < kSequence; ++s) {
        EXPECT_EQ(sample.loss_weights[s] == 0, sample.document_ids[s] < 0);
        if (sample.document_ids[s] >= 0) predicted.push_back(sample.labels[s]);
      }
    }
    ASSERT_EQ(std::ssize(predicted), tokens - 1);
    for (int64_t i = 0; i < tokens - 1; ++i) EXPECT_EQ(predicted[i], i + 1);
  }
}

}  // namespace
}  // namespace moebius
