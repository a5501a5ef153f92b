// The comments of the protos are the manual: each field has one, and the defaults and ranges that
// it tells are those that hold.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <regex>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "configs/fields.h"
#include "configs/ranges.h"

namespace moebius {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::DescriptorPool;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::FileDescriptorProto;
using ::google::protobuf::FileDescriptorSet;
using ::google::protobuf::SourceLocation;

// The comment above a field, on one line.
std::string CommentOf(const FieldDescriptor* field) {
  SourceLocation location;
  EXPECT_TRUE(field->GetSourceLocation(&location)) << field->full_name();
  return absl::StrReplaceAll(location.leading_comments, {{"\n", " "}});
}

// "1e9", "0.9" or "2^24".
double ParseNumber(const std::string& text) {
  const size_t power = text.find('^');
  double value = NAN;
  if (power == std::string::npos) {
    EXPECT_TRUE(absl::SimpleAtod(text, &value)) << text;
  } else {
    value = std::pow(ParseNumber(text.substr(0, power)), ParseNumber(text.substr(power + 1)));
  }
  return value;
}

// The default as a comment writes it; "" for types whose comments put it otherwise.
std::string DefaultOf(const FieldDescriptor* field) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(field->default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(field->default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(field->default_value_uint64());
    case FieldDescriptor::CPPTYPE_BOOL:
      return field->default_value_bool() ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return field->default_value_enum()->name();
    default:
      return "";
  }
}

void CheckDefault(const FieldDescriptor* field, const std::string& comment) {
  if (!field->has_default_value()) {
    EXPECT_TRUE(absl::StrContains(comment, "Required")) << field->full_name() << comment;
    return;
  }
  std::smatch told;
  ASSERT_TRUE(
      std::regex_search(comment, told, std::regex("Default \"?([A-Za-z0-9_.-]*[A-Za-z0-9])")))
      << field->full_name() << comment;
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
    EXPECT_EQ(ParseNumber(told[1]), field->default_value_double()) << field->full_name();
  } else if (const std::string value = DefaultOf(field); !value.empty()) {
    EXPECT_EQ(told[1], value) << field->full_name();
  }
}

void CheckRange(const Range& range, const FieldDescriptor* field, const std::string& comment) {
  if (absl::StrContains(comment, "must be 1.")) return;
  std::smatch told;
  ASSERT_TRUE(
      std::regex_search(comment, told, std::regex(R"(([(\[])([0-9.e^-]+), ([0-9.e^]+)([)\]]))")))
      << field->full_name() << comment;
  const double min = told[1] == "(" ? std::numeric_limits<double>::min() : ParseNumber(told[2]);
  EXPECT_EQ(range.min, min) << field->full_name();
  EXPECT_EQ(range.max, ParseNumber(told[3])) << field->full_name();
  EXPECT_EQ(range.below_max, told[4] == ")") << field->full_name();
}

// Returns the number of fields seen.
int CheckComments(const Descriptor* message, const std::string& base) {
  int num_fields = message->field_count();
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    const std::string path = JoinPath(base, field->name());
    const std::string comment = CommentOf(field);
    EXPECT_FALSE(comment.empty()) << path;
    if (field->message_type()) num_fields += CheckComments(field->message_type(), path);
    if (field->message_type() || field->is_repeated()) continue;
    CheckDefault(field, comment);
    if (const Range* range = FindRange(path)) CheckRange(*range, field, comment);
  }
  return num_fields;
}

TEST(Comments, TellTheDefaultsAndRangesThatHold) {
  std::ifstream stream("configs/descriptors.binpb", std::ios::binary);
  FileDescriptorSet files;
  ASSERT_TRUE(files.ParseFromIstream(&stream));
  DescriptorPool pool;
  for (const FileDescriptorProto& file : files.file()) ASSERT_NE(pool.BuildFile(file), nullptr);
  const Descriptor* run = pool.FindMessageTypeByName("moebius.RunConfig");
  const Descriptor* cluster = pool.FindMessageTypeByName("moebius.ClusterConfig");
  ASSERT_TRUE(run != nullptr && cluster != nullptr);
  EXPECT_GT(CheckComments(run, ""), 60);
  EXPECT_GT(CheckComments(cluster, ""), 25);
}

}  // namespace
}  // namespace moebius
