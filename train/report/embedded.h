// Files that are built into the program.
#pragma once

namespace moebius::embedded {

extern const char kPageHtml[];
extern const char kPageCss[];
extern const char kPageJs[];
extern const char kChartLibrary[];  // Chart.js 3.9 (MIT licence, which its first lines state)

}  // namespace moebius::embedded
