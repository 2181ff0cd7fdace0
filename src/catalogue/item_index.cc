// SPDX-License-Identifier: Apache-2.0
#include "catalogue/item_index.h"
