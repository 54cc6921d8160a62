/* Dense layers whose filter lies in memory as it is, trained or not, or whose accumulators start from what a LoRA adds,
 * and the LORA_DOWN of one position, for cores with the DSP extension. Contracts are those of tp_fully_connected_s8,
 * tp_dense_logits_s8 and tp_lora_down_s8, bit for bit. */
#ifndef TP_KERNELS_DSP_DENSE_H
#define TP_KERNELS_DSP_DENSE_H

#include "tp_kernels_dsp.h"

/* A generated routine: the inner products of an input and `blocks` blocks of rows, at least one, which lie one behind the
 * other. offsets: what is added to inputs, in both halves. */
typedef void tp_row_dots_function(const int8_t *input, const int8_t *rows, int32_t *sums, uint32_t offsets,
                                  int32_t blocks);

typedef struct {
  int32_t size, count; /* elements of a row, rows in all */
  int32_t together;    /* rows of a block: 4, or `count` where that is less */
  int32_t input_offset;
  tp_row_dots_function *dots;
} tp_dense_rows_dsp;

typedef struct {
  tp_fully_connected_params layer;
  tp_dense_rows_dsp rows; /* input_offset is 0 where the bias holds what it adds */
} tp_dense_rows_dsp_params;

/* hidden, lora_B and lora_shift are not read where the layer's rank is 0. */
void tp_fully_connected_rows_dsp_s8(const tp_dense_rows_dsp_params *params, const int8_t *input, const int8_t *filter,
                                    const int32_t *bias, const int32_t *multiplier, const int8_t *shift,
                                    const int16_t *hidden, const int8_t *lora_B, const int8_t *lora_shift,
                                    int8_t *output);

void tp_dense_logits_rows_dsp_s8(const tp_dense_rows_dsp_params *params, const int8_t *input, const int8_t *filter,
                                 const int32_t *bias, const float *scale, const int16_t *hidden, const int8_t *lora_B,
                                 const int8_t *lora_shift, int32_t *logits);

/* input (Cin), lora_A (r,Cin), hidden_shift (1), hidden (r). */
void tp_lora_down_rows_dsp_s8(const tp_dense_rows_dsp *params, const int8_t *input, const int8_t *lora_A,
                              const int8_t *hidden_shift, int16_t *hidden);

typedef struct {
  tp_dense_dsp_params layer; /* its words lack what sums start from */
  int32_t rank;
  int32_t limit;       /* addends beyond -limit..limit - 1 clamp the output, which the compiler has proved */
  const int32_t *base; /* (blocks,4): what the sums of four channels start from without an adapter */
} tp_dense_lora_dsp_params;

/* hidden (positions,rank), lora_B (Cout,rank), lora_shift (Cout). scratch: 16 bytes for each four channels. */
void tp_dense_lora_dsp_s8(const tp_dense_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                          const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch);

#endif
