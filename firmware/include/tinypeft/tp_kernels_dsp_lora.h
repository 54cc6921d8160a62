/* Convolutions with a LoRA for cores with the DSP extension: the kernels of tp_kernels_dsp.h, whose accumulators start
 * from what the adapter adds. Contracts are those of tp_conv_s8, bit for bit. */
#ifndef TP_KERNELS_DSP_LORA_H
#define TP_KERNELS_DSP_LORA_H

#include "tp_kernels_dsp.h"

/* Generated for the rank: what both positions' sums start from, for `blocks` of four channels. base: that without the
 * LoRA, four words a block; table: of tp_lora_start_dsp_params; hidden (2,pairs) words of two values. */
typedef void tp_lora_start_routine(const int32_t *base, const uint32_t *table, int32_t *starts, const uint32_t *hidden,
                                   int32_t blocks);

typedef struct {
  int32_t blocks, output_c;
  int32_t rank, pairs; /* of ranks: rank / 2, rounded up */
  int32_t limit;       /* addends beyond -limit..limit - 1 clamp the output, which the compiler has proved */
  const int32_t *base; /* (blocks,4) */
  tp_lora_start_routine *routine;
} tp_lora_start_dsp_params;

typedef struct {
  tp_pointwise_dsp_params layer; /* its words lack what sums start from */
  tp_lora_start_dsp_params start;
  int32_t input_c;
} tp_pointwise_lora_dsp_params;

/* scratch: blocks * (32 + 16 * (pairs + 2)) bytes, then that of tp_pointwise_dsp_s8. */
void tp_pointwise_lora_dsp_s8(const tp_pointwise_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                              const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch);

typedef struct {
  tp_conv_dsp_params layer; /* its words lack what sums start from */
  tp_lora_start_dsp_params start;
} tp_conv_lora_dsp_params;

/* scratch: the same, then that of tp_conv_dsp_s8. */
void tp_conv_lora_dsp_s8(const tp_conv_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                         const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch);

typedef struct {
  tp_conv_flat_dsp_params layer; /* its words lack what sums start from */
  tp_lora_start_dsp_params start;
  int32_t advance; /* int16 from the inputs of two positions to those of the next two */
} tp_conv_flat_lora_dsp_params;

/* scratch: the same, then that of tp_conv_flat_dsp_s8. */
void tp_conv_flat_lora_dsp_s8(const tp_conv_flat_lora_dsp_params *params, const int8_t *input, const int16_t *hidden,
                              const int8_t *lora_B, const int8_t *lora_shift, int8_t *output, void *scratch);

#endif
