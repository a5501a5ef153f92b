#include "train/metrics/console.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace moebius {

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto total = static_cast<int64_t>(std::llround(seconds));
  const int64_t hours = total / 3600, minutes = total / 60 % 60;
  if (hours == 0) return absl::StrFormat("%d:%02d", minutes, total % 60);
  return absl::StrFormat("%d:%02d:%02d", hours, minutes, total % 60);
}

std::string FormatBytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return unit == 0 ? absl::StrFormat("%d B", bytes)
                   : absl::StrFormat("%.2f %s", value, kUnits[unit]);
}

std::string FormatWithCommas(int64_t number) {
  std::string text = absl::StrCat(number);
  const int64_t first = number < 0 ? 1 : 0;
  for (auto at = static_cast<int64_t>(text.size()) - 3; at > first; at -= 3)
    text.insert(at, 1, ',');
  return text;
}

std::string StepConsole::Line(const StepMetrics& m) {
  pace_ms_ = pace_ms_ == 0 ? m.step_ms : 0.8 * pace_ms_ + 0.2 * m.step_ms;
  const double left = static_cast<double>(num_steps_ - m.step) * pace_ms_ / 1000;
  std::string line = absl::StrFormat(
      "step %d/%d | loss %.4f | balance %.4f | z %.4f | grad norm %.3f | lr %.2e | %.1f ms | %s "
      "tok/s | MFU %.1f%%",
      m.step, num_steps_, m.loss, m.balance_loss, m.z_loss, m.grad_norm, m.lr, m.step_ms,
      FormatWithCommas(std::llround(m.tokens_per_second)), 100 * m.mfu);
  if (!m.expert_load.empty()) {
    absl::StrAppendFormat(&line, " | load max/mean %.2f", MaxOverMeanLoad(m.expert_load));
  }
  return absl::StrCat(line, " | mem ", FormatBytes(m.peak_bytes), " | left ", FormatDuration(left));
}

ProgressBar::ProgressBar(std::string label, int64_t total)
    : label_(std::move(label)),
      total_(total),
      is_terminal_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()) {}

ProgressBar::~ProgressBar() {
  if (is_terminal_) std::fputc('\n', stderr);
}

void ProgressBar::Update(int64_t done) {
  const Clock::time_point now = Clock::now();
  if (!is_terminal_ || (done < total_ && now - drawn_ < std::chrono::milliseconds(100))) return;
  drawn_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  std::fprintf(stderr, "\r%s\x1b[K", Draw(label_, done, total_, seconds).c_str());
}

std::string ProgressBar::Draw(const std::string& label, int64_t done, int64_t total,
                              double seconds) {
  constexpr int kWidth = 30;
  const double share =
      total <= 0 ? 1 : std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
  const int filled = static_cast<int>(share * kWidth);
  const double left = share > 0 ? seconds * (1 - share) / share : -1;
  return absl::StrFormat("%s [%s%s] %3d%%  %s  left %s", label, std::string(filled, '#'),
                         std::string(kWidth - filled, '-'), static_cast<int>(share * 100),
                         FormatBytes(done), FormatDuration(left));
}

}  // namespace moebius
