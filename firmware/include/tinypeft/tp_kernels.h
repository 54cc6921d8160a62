/* Every kernel of tinypeft, by operator family. Kernels cannot fail: the compiler has checked shapes and bounds. */
#ifndef TP_KERNELS_H
#define TP_KERNELS_H

#include "tp_kernels_conv.h"

#endif
