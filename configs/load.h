// From a config file and `--set` overrides to a RunConfig in which every default is filled in and
// every rule holds. Pure functions of their arguments and the file; thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "configs/run.pb.h"

namespace moebius {

// Reads `file` (text format), applies `overrides` in order, fills in defaults, validates.
//
// An override is "path=value", for instance
//   train.num_steps=100                      a number, an enum value, true or false
//   run.dir=runs/a   run.dir="runs/a"        a string, with or without quotes
//   model.moe.layers=[1, 3]                  a repeated field: the whole list
//   data.domains[0].weight=2                 a field of an element, counted from 0
//   model.moe.router={score: SIGMOID}        a message, its other fields back at their defaults
//
// On failure InvalidArgument (or NotFound for a missing file), one line for each error found, in
// the order of the file:
//   run.textproto:12:3: train.num_step: no such field, did you mean "num_steps"?
// The line and column are those of the field's name, from 1. An error in an override has the
// override in the place of the file ("--set train.num_steps=x:1:7: ..."), one in a field that
// nobody set has neither line nor column. Overrides are looked at when the file parses, rules when
// the overrides do.
absl::StatusOr<RunConfig> LoadRunConfig(const std::string& file,
                                        const std::vector<std::string>& overrides = {});

// The same for text that is already in memory; `name` stands for the file in errors.
absl::StatusOr<RunConfig> ParseRunConfig(const std::string& name, const std::string& text,
                                         const std::vector<std::string>& overrides = {});

// Text format, fields in the order of the protos. Equal configs print the same bytes, and a loaded
// config's print loads back as an equal one.
std::string PrintConfig(const RunConfig& config);

}  // namespace moebius
