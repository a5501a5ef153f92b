// The comments of the protos are the manual: each field has one, and the defaults and ranges that
// it tells are those that hold.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

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

// Reads "1e9", "0.9" or "2^24"; false for anything else.
bool ReadNumber(const std::string& text, double* value) {
  const size_t power = text.find('^');
  if (power == std::string::npos) return absl::SimpleAtod(text, value);
  double base, exponent;
  if (!absl::SimpleAtod(text.substr(0, power), &base)) return false;
  if (!absl::SimpleAtod(text.substr(power + 1), &exponent)) return false;
  *value = std::pow(base, exponent);
  return true;
}

// What follows `start` in `text`, up to a blank, without the punctuation at its end.
std::string WordAfter(const std::string& text, const std::string& start) {
  const size_t begin = text.find(start);
  if (begin == std::string::npos) return "";
  std::string word = text.substr(begin + start.size());
  word = word.substr(0, word.find(' '));
  while (!word.empty() && absl::StrContains(".,:;", word.substr(word.size() - 1))) word.pop_back();
  return word;
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
  const std::string told = WordAfter(comment, "Default ");
  ASSERT_NE(told, "") << field->full_name() << comment;
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
    double value = NAN;
    EXPECT_TRUE(ReadNumber(told, &value)) << told;
    EXPECT_EQ(value, field->default_value_double()) << field->full_name();
  } else if (const std::string value = DefaultOf(field); !value.empty()) {
    EXPECT_EQ(told, value) << field->full_name();
  }
}

// The range in a comment stands as "[1, 2^24]", with a parenthesis where an end is not allowed.
void CheckRange(const Range& range, const FieldDescriptor* field, const std::string& comment) {
  if (absl::StrContains(comment, "must be 1.")) return;
  for (size_t begin = 0; begin < comment.size(); ++begin) {
    const size_t comma = comment.find(", ", begin);
    const size_t end = comment.find_first_of(")]", begin + 1);
    const bool opens = comment[begin] == '[' || comment[begin] == '(';
    if (!opens || comma == std::string::npos || end == std::string::npos || comma > end) continue;
    double min, max;
    if (!ReadNumber(comment.substr(begin + 1, comma - begin - 1), &min)) continue;
    if (!ReadNumber(comment.substr(comma + 2, end - comma - 2), &max)) continue;
    EXPECT_EQ(range.min, comment[begin] == '(' ? std::numeric_limits<double>::min() : min)
        << field->full_name();
    EXPECT_EQ(range.max, max) << field->full_name();
    EXPECT_EQ(range.below_max, comment[end] == ')') << field->full_name();
    return;
  }
  ADD_FAILURE() << "no range in the comment of " << field->full_name() << ": " << comment;
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
  const Descriptor* root = pool.FindMessageTypeByName("moebius.RunConfig");
  ASSERT_NE(root, nullptr);
  EXPECT_GT(CheckComments(root, ""), 60);
}

}  // namespace
}  // namespace moebius
