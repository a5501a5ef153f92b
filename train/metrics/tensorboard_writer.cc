#include "train/metrics/tensorboard_writer.h"

#include <isa-l/crc.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <filesystem>
#include <system_error>

#include "train/metrics/event.pb.h"

namespace moebius {
namespace {

double WallTime() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

tensorboard::Event EventAt(int64_t step) {
  tensorboard::Event event;
  event.set_wall_time(WallTime());
  event.set_step(step);
  return event;
}

void AddScalar(const std::string& tag, double value, tensorboard::Event& event) {
  tensorboard::Summary::Value* scalar = event.mutable_summary()->add_value();
  scalar->set_tag(tag);
  scalar->set_simple_value(static_cast<float>(value));
}

absl::Status Append(const tensorboard::Event& event, OutputFile& file) {
  return file.Write(FrameRecord(event.SerializeAsString()));
}

template <class T>
void AppendBytes(const T& value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

uint32_t MaskedCrc32c(std::span<const std::byte> bytes) {
  // The library takes a writable pointer but only reads.
  auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
  const uint32_t crc = ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~0u);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

std::string FrameRecord(const std::string& data) {
  const uint64_t length = data.size();
  std::string record;
  AppendBytes(length, record);
  AppendBytes(MaskedCrc32c(std::as_bytes(std::span(&length, 1))), record);
  record += data;
  AppendBytes(MaskedCrc32c(std::as_bytes(std::span(data))), record);
  return record;
}

absl::StatusOr<TensorBoardWriter> TensorBoardWriter::Create(const std::string& directory,
                                                            int attempt, int64_t resumed_step) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(), absl::StrCat(directory, ": cannot create"));
  }
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const std::string path = absl::StrFormat("%s/events.out.tfevents.%010d.%s.%d", directory,
                                           static_cast<int64_t>(WallTime()), host, attempt);
  ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));

  tensorboard::Event version = EventAt(0);
  version.set_file_version("brain.Event:2");
  RETURN_IF_ERROR(Append(version, file));
  tensorboard::Event start = EventAt(resumed_step + 1);
  start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  RETURN_IF_ERROR(Append(start, file));
  return TensorBoardWriter(std::move(file));
}

absl::Status TensorBoardWriter::Write(const StepMetrics& metrics) {
  tensorboard::Event event = EventAt(metrics.step);
  for (const auto& [key, value] : Scalars(metrics)) AddScalar("train/" + key, value, event);
  return Append(event, file_);
}

absl::Status TensorBoardWriter::Write(const EvalMetrics& metrics) {
  tensorboard::Event event = EventAt(metrics.step);
  const std::string prefix = absl::StrCat("eval/", metrics.domain, "/");
  AddScalar(prefix + "loss", metrics.loss, event);
  AddScalar(prefix + "bits_per_byte", metrics.bits_per_byte, event);
  return Append(event, file_);
}

}  // namespace moebius
