// SPDX-License-Identifier: Apache-2.0
#include "catalogue/rule_cache.h"
