// SPDX-License-Identifier: Apache-2.0
#include "catalogue/tag_dictionary.h"
