/* Convolutions with a LoRA for cores with the DSP extension: the kernels of tp_kernels_dsp.h, whose accumulators start
 * from what the adapter adds. Contracts are those of tp_conv_s8, bit for bit. */
#ifndef TP_KERNELS_DSP_LORA_H
#define TP_KERNELS_DSP_LORA_H

#include "tp_kernels_dsp.h"

/* Where a generated routine finds hidden values of a pair of positions; it changes its copy. */
typedef struct {
  const int16_t *hidden; /* of the first position, `rank` values */
  int32_t apart, step;   /* bytes from there to those of the second position, and to those of the next pair */
  int32_t shift;         /* of a rank of 1: how far left hidden values go */
  uint32_t *words;       /* of a rank above 4: memory for the hidden values of a pair */
  uint32_t room[5];
} tp_lora_positions;

/* tp_dot_function or tp_pointwise_function, to which scratch matters alone, generated for the rank as well. table: of
 * each four channels, in the order c+2, c, c+3, c+1, what adds to them and what sums start from: for a rank of 1 B
 * times a power of two, else pairs of B and the factor 2^(32 - shift); then the start, of c and c+1 what S is more than
 * low. For a rank above 4 the first pairs of B of all four come first, then the next, and last the factors; the starts
 * lie in front of the words of each four channels. */
typedef void tp_lora_dot_function(const void *x, const int32_t *words, int8_t *output, int32_t positions,
                                  int32_t output_c, const int32_t *last, const int32_t *table, void *scratch,
                                  tp_lora_positions at);

/* Channels without weights, of which `bias` and what an adapter adds is all there is; they are computed one by one. */
typedef struct {
  int32_t count;
  const int16_t *channel;
  const int32_t *bias, *multiplier;
  const int8_t *shift;
  int32_t output_offset;
  int32_t activation_min, activation_max;
  const int16_t *others; /* (computed_c) the channels that the routine computes */
} tp_lone_channels;

typedef struct {
  int32_t blocks, computed_c; /* of the routine */
  int32_t output_c, rank;
  int32_t limit;       /* addends beyond -limit..limit - 1 clamp the output, which the compiler has proved */
  const int32_t *base; /* (4*blocks) starts in the order of the table, where that has them */
  tp_lora_dot_function *dot;
  const tp_lone_channels *alone; /* NULL: none, computed_c is output_c */
} tp_lora_dsp_params;

typedef struct {
  tp_pointwise_dsp_params layer; /* no routine; its words lack what sums start from but for a rank above 4 */
  tp_lora_dsp_params start;
  int32_t input_c;
} tp_pointwise_lora_dsp_params;

/* scratch: the table, 4 * blocks entries of 2 words for a rank of 1, else of rank/2, rounded up, and 2, above 4 and 1;
 * of a rank above 4 two words for each pair of ranks; with lone channels 2 * computed_c bytes, rounded up to words; then
 * that of tp_pointwise_dsp_s8. */
void tp_pointwise_lora_dsp_s8(const tp_pointwise_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                              const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch);

typedef struct {
  tp_conv_dsp_params layer; /* the same */
  tp_lora_dsp_params start;
} tp_conv_lora_dsp_params;

/* scratch: the table, then that of tp_conv_dsp_s8. */
void tp_conv_lora_dsp_s8(const tp_conv_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                         const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch);

typedef struct {
  tp_conv_flat_dsp_params layer; /* the same */
  tp_lora_dsp_params start;
} tp_conv_flat_lora_dsp_params;

/* scratch: the table, then that of tp_conv_flat_dsp_s8. */
void tp_conv_flat_lora_dsp_s8(const tp_conv_flat_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                              const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch);

/* How a routine computes rows of A: how many, at how many positions together, and what its words hold. */
typedef enum {
  TP_LORA_DOWN_ONE = 0, /* at four positions; the others at two */
  TP_LORA_DOWN_TWO = 1,
  TP_LORA_DOWN_FOUR = 2,
  TP_LORA_DOWN_PACKED = 3 /* four, as 256 * row 0 + row 2 and 256 * row 1 + row 3 */
} tp_lora_down_form;

/* Generated for a window: hidden values of up to four rows of A at `count` positions of a line, at least as many as it
 * computes together. rows: of each four inputs, of all rows, the even ones and then the odd ones. block: what sums
 * start from, then the shift. */
typedef void tp_lora_down_routine(const int8_t *input, const uint32_t *rows, int16_t *hidden, const int32_t *block,
                                  int32_t count);

typedef struct {
  tp_lora_down_params down;
  int32_t pitch, rows; /* of rows that are copied with their padding: elements, a multiple of 4; how many are held */
  tp_lora_down_routine *fours; /* of each four rows of A, and of what is left of them; NULL: none */
  tp_lora_down_form fours_form;
  tp_lora_down_routine *rest;
  tp_lora_down_form rest_form;
} tp_lora_down_dsp_params;

/* Columns are not dilated; a pointwise window has a multiple of 4 channels. scratch: of each row of A that is computed
 * its lines as int16, rounded up to 4, and, unless the window is pointwise, the rows. */
void tp_lora_down_dsp_s8(const tp_lora_down_dsp_params *params, const int8_t *input, const int8_t *lora_A,
                         const int8_t *hidden_shift, int16_t *hidden, void *scratch);

#endif
