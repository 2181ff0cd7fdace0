// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <memory>

#include "spdlog/sinks/stdout_color_sinks.h"

namespace beamline {

namespace {

constexpr char kName[] = "beamline";

}  // namespace

spdlog::logger& Log() {
  // Never destroyed: threads that end after main's last line may still write.
  static const auto* const logger = [] {
    if (std::shared_ptr<spdlog::logger> given = spdlog::get(kName)) return new std::shared_ptr<spdlog::logger>(given);
    return new std::shared_ptr<spdlog::logger>(
        std::make_shared<spdlog::logger>(kName, std::make_shared<spdlog::sinks::stderr_color_sink_mt>()));
  }();
  return **logger;
}

}  // namespace beamline
