/* Depthwise convolution for Armv7E-M and Armv8-M cores with DSP instructions. Channels are widened to planes of int16,
 * padding included, and generated routines (tinypeft/kernels/dsp/depthwise_held.py and depthwise_loaded.py) compute rows from there.
 * Layouts: activations (H,W,C), batch 1; input channel c gives output channels c*m to c*m + m - 1. */
#ifndef TP_KERNELS_DSP_DEPTHWISE_H
#define TP_KERNELS_DSP_DEPTHWISE_H

#include "tp_types.h"

/* `count` times pixels of four channels to four rows of int16; x and row move on each time. */
typedef void tp_widen_function(const int8_t *x, int16_t *row, int32_t count);

/* How an image becomes planes. Row y of the image is row y + pad_top of a plane of `rows` rows, or of a ring of them. */
typedef struct {
  int32_t input_h, input_c;
  int32_t row_bytes;   /* of the image */
  int32_t first;       /* byte in a row of the first column that is read */
  int32_t columns;     /* that are read */
  int32_t left;        /* halfwords of padding in front of them */
  int32_t pad_top;     /* rows of padding above, perhaps negative */
  int32_t padding;     /* the input's zero point, in both halves of a word */
  int32_t rows, pitch; /* of a plane; halfwords from one row to the next, even */
  tp_widen_function *widen; /* moves on by four channels in a ring, else by a row; of fewer channels NULL */
} tp_planes;

/* Rows of outputs of some channels; the weights stay in registers. `phase`: which row of a ring is the first. */
typedef void tp_depthwise_held_function(const int16_t *planes, int8_t *output, const int32_t *table, int32_t phase);

typedef struct {
  tp_planes planes;
  int32_t output_h, output_row_bytes, stride_h;
  int32_t depth_multiplier;
  int32_t table_words; /* of an output channel: packed weights, bias, multiplier, addend */
  const int32_t *table;
  tp_depthwise_held_function *routine;
} tp_depthwise_held_params;

/* Rows of the image go through a ring of `rows` rows of all channels: scratch of 2*rows*pitch*C bytes, word-aligned. The
 * routine computes one row of all channels; of one channel where the depth multiplier is not 1.
 * output may lie in front of input as far as Op.behind of DEPTHWISE_CONV_2D says, and overwrite it. */
void tp_depthwise_ring_dsp(const tp_depthwise_held_params *params, const int8_t *input, int8_t *output, void *scratch);

/* Four channels at a time as whole planes, C a multiple of 4, depth multiplier 1: scratch of 8*rows*pitch bytes. The
 * routine computes all rows of four channels. output may be input itself. */
void tp_depthwise_planes_dsp(const tp_depthwise_held_params *params, const int8_t *input, int8_t *output,
                             void *scratch);

/* A row of outputs of one channel, from segments of the kernel's rows; moves the pointers. */
typedef void tp_depthwise_loaded_function(const int16_t **segments, int8_t *output, const int32_t *table);

typedef struct {
  tp_planes planes;
  int32_t output_h, output_row_bytes, stride_h;
  int32_t depth_multiplier;
  int32_t table_words; /* of an output channel: bias, multiplier, addend, packed weights */
  const int32_t *table;
  tp_depthwise_loaded_function *routine;
  int32_t kernel_h, dilation_h;
  int32_t row_segments, segment_step; /* segments of a row of the kernel; halfwords from one to the next */
} tp_depthwise_loaded_params;

/* Any kernel, stride and dilation, through a ring as above: scratch of 4*kernel_h*row_segments bytes for the pointers,
 * then the ring and 4 bytes more. output may lie in front of input as far as Op.behind says, and overwrite it. */
void tp_depthwise_segments_dsp(const tp_depthwise_loaded_params *params, const int8_t *input, int8_t *output,
                               void *scratch);

#endif
