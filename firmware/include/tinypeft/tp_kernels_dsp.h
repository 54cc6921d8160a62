/* Convolution and fully connected of the `dsp` backend, for cores with the DSP extension (Armv7E-M, Armv8-M main).
 * A layer's weights, biases and multipliers are one stream of words that a generated routine walks over; the compiler
 * has proved that it gives the bits of the portable kernel. Layouts are those of tp_kernels_conv.h. */
#ifndef TP_KERNELS_DSP_H
#define TP_KERNELS_DSP_H

#include "tp_kernels_conv.h"

/* A generated routine: all output channels of `positions` outputs that lie one behind the other. `x`: widened inputs, or
 * of several rows the array of pointers to the words in front of them, which move on. `last` is the layer's last word.
 * `starts` is read where a routine is made for it: for each pair of positions and each four channels what the sums of
 * both start from, eight words. */
typedef void tp_dot_function(void *x, const int32_t *words, int8_t *output, int32_t positions, int32_t output_c,
                             const int32_t *last, const int32_t *starts);

/* The same for int8 inputs, positions one behind the other: it widens two at a time into scratch. */
typedef void tp_pointwise_function(const int8_t *x, const int32_t *words, int8_t *output, int32_t positions,
                                   int32_t output_c, const int32_t *last, const int32_t *starts, void *scratch);

typedef struct {
  int32_t positions, output_c;
  int32_t word_count;
  const int32_t *words;
  tp_pointwise_function *dot;
} tp_pointwise_dsp_params;

/* 1x1 convolution with stride 1, or fully connected: input (positions,Cin), output (positions,Cout).
 * scratch: two positions of Cin int16, rounded up to even. */
void tp_pointwise_dsp_s8(const tp_pointwise_dsp_params *params, const int8_t *input, int8_t *output, void *scratch);

typedef struct {
  int32_t input_w, input_c; /* of the image */
  int32_t output_h, output_w, output_c;
  int32_t stride_h, stride_w;
  int32_t together; /* positions that are widened at once, even */
  int32_t word_count;
  const int32_t *words;
  tp_dot_function *dot;
} tp_pointwise_strided_dsp_params;

/* 1x1 convolution that stays inside its input: input (H,W,Cin), output (OH,OW,Cout).
 * scratch: `together` positions of Cin int16, rounded up to even. */
void tp_pointwise_strided_dsp_s8(const tp_pointwise_strided_dsp_params *params, const int8_t *input, int8_t *output,
                                 void *scratch);

#define TP_DSP_KERNEL_H_MAX 16

typedef struct {
  tp_window window; /* without dilation; kernel_h at most TP_DSP_KERNEL_H_MAX */
  int32_t padding;  /* the input's zero point */
  int32_t pitch;    /* int16 from a row of the ring to the next, a multiple of 2 */
  int32_t ordered;  /* whether four inputs are widened in the order 0, 2, 1, 3; then Cin is a multiple of 4 */
  int32_t word_count;
  const int32_t *words;
  tp_dot_function *dot;
} tp_conv_dsp_params;

/* Convolution of a KHxKW window: input rows are widened once, with their padding, into a ring of KH.
 * scratch: a word, KH * pitch int16, and what the last position reads beyond. */
void tp_conv_dsp_s8(const tp_conv_dsp_params *params, const int8_t *input, int8_t *output, void *scratch);

/* Widened rows of the padded image, in a ring of KH. */
typedef struct {
  int16_t *first; /* the ring, behind a word */
  int32_t end;    /* the row of the padded image behind the last that is widened; 0 at first */
  int16_t *rows[TP_DSP_KERNEL_H_MAX]; /* as a routine takes them */
} tp_row_ring;

/* Widens what output row `oy` reads and the ring lacks, and points `rows` to it. Rows come in order. */
void tp_widen_ring_dsp(const tp_conv_dsp_params *params, const int8_t *input, int32_t oy, tp_row_ring *ring);

typedef struct {
  tp_window window;
  int32_t padding, pitch, ordered; /* as of tp_conv_dsp_params */
  int32_t rows;     /* that scratch holds */
  int32_t together; /* output rows that the routine computes at once, 1 or 2; of 2 it takes the bytes between them */
  int32_t word_count;
  const int32_t *words;
  tp_dot_function *dot;
} tp_conv_flat_dsp_params;

/* The same with rows one behind the other, for small windows: when scratch is full, what is still needed moves to its
 * front. scratch: rows * pitch int16, and what the last position reads beyond. */
void tp_conv_flat_dsp_s8(const tp_conv_flat_dsp_params *params, const int8_t *input, int8_t *output, void *scratch);

/* Widened rows of the padded image one behind the other, from row `first` to in front of `end`; both 0 at first. */
typedef struct {
  int16_t *rows;
  int32_t first, end;
} tp_flat_rows;

/* Widens what output row `oy`, or two of them, read and `held` lacks; returns where that begins. Rows come in order. */
int16_t *tp_widen_flat_dsp(const tp_conv_flat_dsp_params *params, const int8_t *input, int32_t oy, tp_flat_rows *held);

/* A generated routine: all output channels of one row of inputs, which it reads as they lie. `starts` is read where a
 * routine is made for it: what the sums of each four channels start from, four words. */
typedef void tp_dense_function(const int8_t *x, const int32_t *words, int8_t *output, const int32_t *last,
                               const int32_t *starts);

typedef struct {
  int32_t positions; /* rows of input and output */
  int32_t input_c, output_c;
  int32_t word_count;
  const int32_t *words;
  tp_dense_function *dense;
} tp_dense_dsp_params;

/* Fully connected: input (positions,Cin), output (positions,Cout). */
void tp_dense_dsp_s8(const tp_dense_dsp_params *params, const int8_t *input, int8_t *output);

#endif
