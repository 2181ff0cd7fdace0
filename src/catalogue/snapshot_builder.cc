// SPDX-License-Identifier: Apache-2.0
#include "catalogue/snapshot_builder.h"
