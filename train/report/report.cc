#include "train/report/report.h"

#include <filesystem>
#include <map>

#include "absl/strings/str_replace.h"
#include "core/base/files.h"
#include "train/report/embedded.h"
#include "train/report/run_data.h"

namespace moebius {
namespace {

std::string EscapeHtml(const std::string& text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string EscapedFile(const std::string& path) {
  const auto text = ReadFile(path);
  return text.ok() ? EscapeHtml(*text) : "";
}

std::string TitleOf(const std::string& root) {
  const std::filesystem::path path = std::filesystem::absolute(root).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

}  // namespace

absl::StatusOr<std::string> ReportPage(const RunPaths& paths) {
  ASSIGN_OR_RETURN(const std::string data, RunDataJson(paths));
  // One pass: what is filled in is not looked at again.
  return absl::StrReplaceAll(embedded::kPageHtml, {{"@{title}", EscapeHtml(TitleOf(paths.root))},
                                                   {"@{style}", embedded::kPageCss},
                                                   {"@{config}", EscapedFile(paths.config())},
                                                   {"@{sample}", EscapedFile(paths.sample())},
                                                   {"@{data}", data},
                                                   {"@{chart_library}", embedded::kChartLibrary},
                                                   {"@{script}", embedded::kPageJs}});
}

absl::Status WriteReport(const RunPaths& paths) {
  ASSIGN_OR_RETURN(const std::string page, ReportPage(paths));
  return WriteFileAtomically(paths.report(), page);
}

}  // namespace moebius
