#include "tinypeft/tp_accumulate.h"
#include "tinypeft/tp_kernels.h"

/* The end of the rows from r on that read the same input channels. */
static int32_t end_of_run(const tp_sparse_rows_params *params, int32_t r) {
  const int32_t rows = params->window.output_c;
  if (params->first_channel == NULL) {
    return rows;
  }
  int32_t end = r + 1;
  while (end < rows && params->first_channel[end] == params->first_channel[r]) {
    end++;
  }
  return end;
}

static int8_t requantized(const tp_sparse_rows_params *params, int32_t acc, int32_t multiplier, int32_t shift) {
  const int32_t value =
      params->rounds_once != 0 ? tp_requantize_single(acc, multiplier, shift) : tp_requantize(acc, multiplier, shift);
  return (int8_t)tp_clamp_s32(value + params->output_offset, params->activation_min, params->activation_max);
}

void tp_sparse_rows_s8(const tp_sparse_rows_params *params, const int8_t *input, const int8_t *rows,
                       const int32_t *bias, const int32_t *multiplier, const int8_t *shift, int8_t *output,
                       void *column) {
  const tp_window *w = &params->window;
  const int32_t count = w->kernel_h * w->kernel_w * params->filter_c;
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    for (int32_t ox = 0; ox < w->output_w; ox++) {
      int32_t end = 0;
      for (int32_t first = 0; first < w->output_c; first = end) {
        end = end_of_run(params, first);
        const int8_t *channels = input + (params->first_channel != NULL ? params->first_channel[first] : 0);
        tp_gather_window_s8(w, channels, params->filter_c, params->input_offset, oy, ox, column);
        for (int32_t r = first; r < end; r += TP_BLOCK) {
          int32_t acc[TP_BLOCK];
          const int32_t block = tp_min_s32(end - r, TP_BLOCK);
          tp_dot_rows_s8(column, rows + r * count, count, count, block, acc);
          for (int32_t j = 0; j < block; j++) {
            *output++ = requantized(params, acc[j] + bias[r + j], multiplier[r + j], shift[r + j]);
          }
        }
      }
    }
  }
}

void tp_replace_channels_s8(const tp_channels_params *params, const int8_t *base, const int8_t *rows, int8_t *output) {
  if (base != output) {
    memcpy(output, base, (size_t)(params->positions * params->channels));
  }
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t r = 0; r < params->rows; r++) {
      output[p * params->channels + params->channel[r]] = *rows++;
    }
  }
}

void tp_select_channels_s16(const tp_channels_params *params, const tp_bfp *d_output, tp_bfp *selected) {
  const int32_t exponent = d_output->exponent;
  int32_t peak = 0;
  for (int32_t p = 0; p < params->positions; p++) {
    const tp_mantissa *source = d_output->mantissa + p * params->channels;
    for (int32_t r = 0; r < params->rows; r++) {
      const tp_mantissa value = source[params->channel[r]];
      peak = tp_max_s32(peak, tp_abs_s32(value));
      selected->mantissa[p * params->rows + r] = value;
    }
  }
  selected->exponent = exponent;
  selected->peak = peak;
}

void tp_clear_channels_s16(const tp_channels_params *params, const tp_bfp *d_output, tp_bfp *cleared) {
  const int32_t exponent = d_output->exponent;
  int32_t peak = 0;
  for (int32_t p = 0; p < params->positions; p++) {
    const tp_mantissa *source = d_output->mantissa + p * params->channels;
    tp_mantissa *result = cleared->mantissa + p * params->channels;
    int32_t r = 0;
    for (int32_t c = 0; c < params->channels; c++) {
      const int listed = r < params->rows && params->channel[r] == c;
      const tp_mantissa value = listed ? 0 : source[c];
      r += listed;
      peak = tp_max_s32(peak, tp_abs_s32(value));
      result[c] = value;
    }
  }
  cleared->exponent = exponent;
  cleared->peak = peak;
}
