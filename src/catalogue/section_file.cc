// SPDX-License-Identifier: Apache-2.0
#include "catalogue/section_file.h"
