// SPDX-License-Identifier: Apache-2.0
//
// Errors cross every layer border as absl::Status; the codes are gRPC's, so the server maps them one to one. Messages
// name the field or file, the limit and the actual value, and say what to do. The macros below only shorten the two
// usual forms of passing an error on.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define BEAMLINE_RETURN_IF_ERROR(expr)                                                           \
  do {                                                                                           \
    if (absl::Status beamline_status_ = (expr); !beamline_status_.ok()) return beamline_status_; \
  } while (false)

#define BEAMLINE_CONCAT_INNER_(a, b) a##b
#define BEAMLINE_CONCAT_(a, b) BEAMLINE_CONCAT_INNER_(a, b)

// BEAMLINE_ASSIGN_OR_RETURN(auto file, ReadFile(path));
#define BEAMLINE_ASSIGN_OR_RETURN(lhs, expr) \
  BEAMLINE_ASSIGN_OR_RETURN_IMPL_(BEAMLINE_CONCAT_(beamline_statusor_, __LINE__), lhs, expr)
#define BEAMLINE_ASSIGN_OR_RETURN_IMPL_(result, lhs, expr) \
  auto result = (expr);                                    \
  if (!result.ok()) return std::move(result).status();     \
  lhs = std::move(result).value()
