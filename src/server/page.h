// SPDX-License-Identifier: Apache-2.0
//
// The admin page: the files of page/ as they are, compiled in (CMakeLists.txt).
#pragma once

namespace beamline::server::page {

extern const char kHtml[];
extern const char kCss[];
extern const char kScript[];
extern const char kIcon[];

}  // namespace beamline::server::page
