/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* The whole kernel, for the instructions that the including file has chosen. */
#include "plan.h"
#include "vector.h"

#include "product.h"

#include "work.h"

#include "modes.h"

#include "folding.h"

#include "image.h"

#include "likelihood.h"

#include "examine.h"

#include "correlated.h"

#include "transfer.h"

#include "entry.h"

#include "companions.h"

#include "sources.h"

#include "peaks.h"

#include "scenes.h"

#include "medians.h"

#include "structure.h"

#include "psf.h"

#include "features.h"

#include "network.h"

