// SPDX-License-Identifier: Apache-2.0
#include "beamline/catalogue.h"
#include "beamline/engine.h"
#include "beamline/parallel.h"
#include "beamline/retry.h"
#include "beamline/stage_timings.h"
#include "beamline/status.h"
#include "beamline/user_history.h"

int main() { return beamline::CreateEngine({}).ok() ? 0 : 1; }
