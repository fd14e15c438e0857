// SPDX-License-Identifier: PSF-2.0
#include "operations.h"

const struct operation *const operation_tables[] = {
    operations_toy,
    NULL,
};
