/* Every kernel of tinypeft, by operator family. Kernels cannot fail: the compiler has checked shapes and bounds. */
#ifndef TP_KERNELS_H
#define TP_KERNELS_H

#include "tp_kernels_backward.h"
#include "tp_kernels_binary.h"
#include "tp_kernels_bottleneck.h"
#include "tp_kernels_channel.h"
#include "tp_kernels_conv.h"
#include "tp_kernels_elementwise.h"
#include "tp_kernels_input_offset.h"
#include "tp_kernels_layout.h"
#include "tp_kernels_lookup.h"
#include "tp_kernels_loss.h"
#include "tp_kernels_pool.h"
#include "tp_kernels_reduce.h"
#include "tp_kernels_resize.h"
#include "tp_kernels_softmax.h"
#include "tp_kernels_sparse.h"
#include "tp_kernels_train.h"
#include "tp_optimizer.h"

#endif
