#include "configs/cluster.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_replace.h"
#include "configs/fields.h"
#include "configs/ranges.h"

namespace moebius {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;

constexpr char kGood[] = R"(ranks: 16
device {
  bf16_flops: 1e15
  memory_bandwidth: 3e12
  ops { name: "adamw" compute: BF16 seconds_per_byte: 1e-12 }
}
within_node { bandwidth: 4e11 }
between_nodes { bandwidth: 5e10 latency_seconds: 1e-5 }
)";

std::string ErrorOf(const std::string& text) {
  return std::string(ParseClusterConfig("broken", text).status().message());
}

TEST(LoadClusterConfig, FillsInDefaultsAndPrintsWhatLoadsBack) {
  const absl::StatusOr<ClusterConfig> cluster = ParseClusterConfig("good", kGood);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(cluster->ranks_per_node(), 8);
  EXPECT_EQ(cluster->device().name(), "device");
  EXPECT_TRUE(cluster->overlaps_exchange());
  const absl::StatusOr<ClusterConfig> again = ParseClusterConfig("printed", PrintCluster(*cluster));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintCluster(*again), PrintCluster(*cluster));
}

TEST(LoadClusterConfig, NamesFileLineColumnFieldAndRule) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"ranks: 16", "rank: 16", "broken:1:1: rank: no such field, did you mean \"ranks\"?"},
      {"ranks: 16", "bandwidth: 16",
       "broken:1:1: bandwidth: no such field here, did you mean \"within_node.bandwidth\" or "
       "\"between_nodes.bandwidth\"?"},
      {"ranks: 16", "ranks: 0",
       "broken:1:1: ranks: 0 is out of range, must be at least 1 and at most 1048576"},
      {"ranks: 16", "ranks: many",
       "broken:1:1: ranks: found many, must be an integer, at least 1 and at most 1048576"},
      {"bf16_flops: 1e15", "product_efficiency: 1.2",
       "broken:3:3: device.product_efficiency: 1.2 is out of range, must be more than 0 and at "
       "most 1"},
      {"memory_bandwidth: 3e12", "", "broken: device.memory_bandwidth: is required"},
      {"bandwidth: 4e11", "", "broken: within_node.bandwidth: is required"},
      {"compute: BF16", "", "broken: device.ops[0].compute: is required"},
      {"  ops {", "  ops { name: \"adamw\" compute: BF16 }\n  ops {",
       "broken:6:9: device.ops[1].name: \"adamw\" is given twice for one precision, give it once"},
  };
  for (const auto& [from, to, error] : cases) {
    EXPECT_EQ(ErrorOf(absl::StrReplaceAll(kGood, {{from, to}})), error);
  }
}

TEST(LoadClusterConfig, AMissingFileIsNotFound) {
  EXPECT_EQ(LoadClusterConfig("nowhere/cluster").status().code(), absl::StatusCode::kNotFound);
}

TEST(LoadClusterConfig, ReadsEveryClusterOfTheTree) {
  int num_clusters = 0;
  for (const auto& entry : std::filesystem::directory_iterator("configs/clusters")) {
    const auto cluster = LoadClusterConfig(entry.path());
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    ++num_clusters;
  }
  EXPECT_GE(num_clusters, 1);
}

void CheckRanges(const Descriptor* message, const std::string& base) {
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    const std::string path = JoinPath(base, field->name());
    if (field->message_type()) CheckRanges(field->message_type(), path);
    const auto type = field->cpp_type();
    const bool is_number =
        type == FieldDescriptor::CPPTYPE_INT64 || type == FieldDescriptor::CPPTYPE_DOUBLE;
    EXPECT_EQ(FindRange(path) != nullptr, is_number) << path;
  }
}

TEST(ClusterRanges, EveryNumberHasOne) { CheckRanges(ClusterConfig::descriptor(), ""); }

}  // namespace
}  // namespace moebius
