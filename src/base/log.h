// SPDX-License-Identifier: Apache-2.0
//
// Where the library writes its log: the spdlog logger that the program registered as "beamline" before the first line,
// else one of our own on standard error. Never standard output, which belongs to the program that embeds us.
#pragma once

#include "spdlog/spdlog.h"

namespace beamline {

// Thread-safe; the same logger for the life of the process.
spdlog::logger& Log();

}  // namespace beamline
