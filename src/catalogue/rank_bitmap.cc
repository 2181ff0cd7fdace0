// SPDX-License-Identifier: Apache-2.0
#include "catalogue/rank_bitmap.h"
