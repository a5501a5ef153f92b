// What `moebius plan` says, as text and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "train/planner/parameter_count.h"
#include "train/planner/search.h"
#include "train/planner/step_time.h"

namespace moebius {

// What both kinds of plan are about.
struct PlanSubject {
  int64_t tokenizer_vocab_size = 0;
  int num_ranks = 1;
  std::string device = "";
  int64_t memory_bytes = 0;  // of a device; 0: not limited
  ParameterCount parameters = {};
};

// Parameters, bytes of each stage's first rank by kind and the fullest of them, on the device and
// beside it in its host's memory, step time and rates, a line a stage, the ops that take longest in
// a whole step on the stage that has most to do, and where there are stages their timeline.
std::string PlanText(const PlanSubject& subject, const StepPlan& plan);

// The same numbers; the timeline as lists of actions with start and end.
nlohmann::ordered_json PlanJson(const PlanSubject& subject, const StepPlan& plan);

// A line a layout, best first, and the overrides (--set) that choose the best one; before them a
// line for what every layout keeps, and one for each reason why some could not be planned.
std::string SearchText(const PlanSubject& subject, const SearchResult& result);
nlohmann::ordered_json SearchJson(const PlanSubject& subject, const SearchResult& result);

}  // namespace moebius
