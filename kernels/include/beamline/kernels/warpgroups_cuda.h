// SPDX-License-Identifier: Apache-2.0
//
// The kernels that use wgmma: of attention, of dense and grouped products and of the head. They need a build for sm_90a
// and a device of capability 9.
#pragma once

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

// Of the environment: 0 goes without them, as if there were none. Read once.
inline constexpr char kWarpgroupsSwitch[] = "BEAMLINE_WARPGROUPS";

// Asks once for the shared memory that they need; outside of any capture, before the first launch. kInvalidArgument:
// the thread's device, or the build, has none of them, or kWarpgroupsSwitch is off.
LaunchError PrepareWarpgroups();

}  // namespace beamline::kernels
