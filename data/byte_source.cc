#include "data/byte_source.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "core/base/check.h"
#include "core/base/files.h"

namespace moebius {
namespace {

absl::Status Damaged(const MappedFile& file, int64_t offset, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(file.path(), ": byte ", offset, ": ", what));
}

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(MappedFile file) : file_(std::move(file)) {}

  absl::StatusOr<size_t> Read(std::span<char> out) override {
    const size_t count = std::min(out.size(), file_.bytes().size() - at_);
    if (count > 0) std::memcpy(out.data(), file_.bytes().data() + at_, count);
    at_ += count;
    return count;
  }
  int64_t offset() const override { return static_cast<int64_t>(at_); }

 private:
  MappedFile file_;
  size_t at_ = 0;
};

// One gzip member after another.
class GzipSource : public ByteSource {
 public:
  explicit GzipSource(MappedFile file) : file_(std::move(file)) {
    constexpr int kGzip = 16;
    CHECK_EQ(inflateInit2(&stream_, MAX_WBITS + kGzip), Z_OK) << "zlib";
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  absl::StatusOr<size_t> Read(std::span<char> out) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(std::min<size_t>(out.size(), 1 << 30));
    const uInt room = stream_.avail_out;
    while (stream_.avail_out == room) {
      if (stream_.avail_in == 0) Refill();
      if (member_done_) {
        if (stream_.avail_in == 0) return 0;
        inflateReset(&stream_);
        member_done_ = false;
      }
      if (stream_.avail_in == 0) return Damaged(file_, offset(), "the gzip data ends early");
      const int code = inflate(&stream_, Z_NO_FLUSH);
      member_done_ = code == Z_STREAM_END;
      if (code != Z_OK && code != Z_STREAM_END) {
        return Damaged(file_, offset(),
                       absl::StrCat("damaged gzip data: ",
                                    stream_.msg != nullptr ? stream_.msg : "inconsistent"));
      }
    }
    return room - stream_.avail_out;
  }
  int64_t offset() const override { return static_cast<int64_t>(taken_ - stream_.avail_in); }

 private:
  void Refill() {
    const size_t count = std::min<size_t>(file_.bytes().size() - taken_, 1 << 30);
    stream_.next_in =
        reinterpret_cast<Bytef*>(const_cast<std::byte*>(file_.bytes().data())) + taken_;
    stream_.avail_in = static_cast<uInt>(count);
    taken_ += count;
  }

  MappedFile file_;
  z_stream stream_ = {};
  size_t taken_ = 0;  // bytes handed to zlib
  bool member_done_ = false;
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(MappedFile file) : file_(std::move(file)), stream_(ZSTD_createDStream()) {
    CHECK(stream_ != nullptr) << "zstd";
    input_ = {file_.bytes().data(), file_.bytes().size(), 0};
  }
  ~ZstdSource() override { ZSTD_freeDStream(stream_); }

  absl::StatusOr<size_t> Read(std::span<char> out) override {
    ZSTD_outBuffer output = {out.data(), out.size(), 0};
    while (output.pos == 0) {
      if (input_.pos == input_.size && frame_done_) return 0;
      const size_t before = input_.pos;
      const size_t code = ZSTD_decompressStream(stream_, &output, &input_);
      if (ZSTD_isError(code)) {
        return Damaged(file_, offset(),
                       absl::StrCat("damaged zstd data: ", ZSTD_getErrorName(code)));
      }
      frame_done_ = code == 0;
      if (!frame_done_ && output.pos == 0 && input_.pos == before && input_.pos == input_.size) {
        return Damaged(file_, offset(), "the zstd data ends early");
      }
    }
    return output.pos;
  }
  int64_t offset() const override { return static_cast<int64_t>(input_.pos); }

 private:
  MappedFile file_;
  ZSTD_DStream* stream_;
  ZSTD_inBuffer input_;
  bool frame_done_ = false;  // an empty file is no zstd frame
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> ByteSource::Open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  if (absl::EndsWith(path, ".gz")) return std::make_unique<GzipSource>(std::move(file));
  if (absl::EndsWith(path, ".zst")) return std::make_unique<ZstdSource>(std::move(file));
  return std::make_unique<PlainSource>(std::move(file));
}

}  // namespace moebius
