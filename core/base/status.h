// Errors that the user or the world caused, as absl::Status: InvalidArgument, FailedPrecondition
// and NotFound are bad input (exit code 2), DataLoss is a damaged file, everything else is a failed
// run.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#define MOEBIUS_CONCAT_(a, b) a##b
#define MOEBIUS_CONCAT(a, b) MOEBIUS_CONCAT_(a, b)

// Returns the status of `expression` unless it is OK.
#define RETURN_IF_ERROR(expression)                                           \
  do {                                                                        \
    if (::absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, MakeX());  returns the error, or moves the value out.
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_(MOEBIUS_CONCAT(status_or_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_(result, declaration, expression) \
  auto result = (expression);                              \
  if (!result.ok()) return result.status();                \
  declaration = *std::move(result)
