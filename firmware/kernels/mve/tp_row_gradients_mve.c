#include "tinypeft/tp_mve.h"
#include "tinypeft/tp_narrowing.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1) && TP_GRADIENT_BITS == 16

/* Positions whose products of a mantissa and an int8 have a sum inside int32. */
#define SEGMENT 512

/* sum[k] = sum over `positions` of mantissa * x[k] for up to 16 channels; mantissas are `stride` apart, inputs
 * `channels`. */
static inline void correlate(const int16_t *g, int32_t stride, const int8_t *x, int32_t channels, int32_t positions,
                             int32_t count, int32_t sum[16]) {
  int32x4_t s0 = vdupq_n_s32(0), s1 = s0, s2 = s0, s3 = s0;
  if (count >= 16) {
    for (int32_t p = 0; p < positions; p++) {
      const int32_t mantissa = *g;
      s0 = vmlaq_n_s32(s0, vldrbq_s32(x), mantissa);
      s1 = vmlaq_n_s32(s1, vldrbq_s32(x + 4), mantissa);
      s2 = vmlaq_n_s32(s2, vldrbq_s32(x + 8), mantissa);
      s3 = vmlaq_n_s32(s3, vldrbq_s32(x + 12), mantissa);
      g += stride;
      x += channels;
    }
  } else {
    const mve_pred16_t p0 = vctp32q((uint32_t)count), p1 = vctp32q((uint32_t)tp_max_s32(count - 4, 0));
    const mve_pred16_t p2 = vctp32q((uint32_t)tp_max_s32(count - 8, 0));
    const mve_pred16_t p3 = vctp32q((uint32_t)tp_max_s32(count - 12, 0));
    for (int32_t p = 0; p < positions; p++) {
      const int32_t mantissa = *g;
      s0 = vmlaq_n_s32(s0, vldrbq_z_s32(x, p0), mantissa);
      s1 = vmlaq_n_s32(s1, vldrbq_z_s32(x + 4, p1), mantissa);
      s2 = vmlaq_n_s32(s2, vldrbq_z_s32(x + 8, p2), mantissa);
      s3 = vmlaq_n_s32(s3, vldrbq_z_s32(x + 12, p3), mantissa);
      g += stride;
      x += channels;
    }
  }
  vstrwq_s32(sum, s0);
  vstrwq_s32(sum + 4, s1);
  vstrwq_s32(sum + 8, s2);
  vstrwq_s32(sum + 12, s3);
}

int tp_filter_gradient_mve_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t column, int32_t shift, int32_t *gradient) {
  const tp_filter_gradient_params *p = params;
  const tp_window *w = &p->window;
  const int32_t positions = w->output_h * w->output_w;
  const int16_t *g = d_output->mantissa + row;
  int64_t of_mantissas = 0;
  (void)column;
  int32_t any = 0;
  for (int32_t i = 0; i < positions; i++) {
    of_mantissas += g[i * w->output_c];
  }
  for (int32_t k = 0; k < w->input_c; k += 16) {
    const int32_t count = tp_min_s32(w->input_c - k, 16);
    int64_t total[16] = {0};
    for (int32_t first = 0; first < positions; first += SEGMENT) {
      int32_t sum[16];
      correlate(g + first * w->output_c, w->output_c, (const int8_t *)source + first * w->input_c + k, w->input_c,
                tp_min_s32(positions - first, SEGMENT), count, sum);
      for (int32_t i = 0; i < count; i++) {
        total[i] += sum[i];
      }
    }
    for (int32_t i = 0; i < count; i++) {
      *gradient = (int32_t)tp_round_shift_s64(total[i] + of_mantissas * p->input_offset, shift);
      any |= *gradient++;
    }
  }
  return any != 0;
}

/* {0, step, ... 7*step} */
static inline uint16x8_t offsets_of(int32_t step) { return vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)step); }

/* sum[j] += sum over eight positions, the lanes of `some`, of mantissa * hidden for up to four ranks. */
int tp_lora_gradient_b_mve_s32(const void *params, const tp_bfp *d_output, const void *source, int32_t row,
                               int32_t column, int32_t shift, int32_t *gradient) {
  const tp_lora_backward_params *p = params;
  const int16_t *g = d_output->mantissa + row;
  const uint16x8_t to_mantissa = offsets_of(p->output_c);
  const uint16x8_t to_hidden = offsets_of(p->rank);
  (void)column;
  int32_t any = 0;
  for (int32_t r = 0; r < p->rank; r += 2) {
    const int32_t other = tp_min_s32(1, p->rank - r - 1); /* of an odd rank the last comes twice */
    const int16_t *mantissa = g;
    const int16_t *hidden = (const int16_t *)source + r;
    int64_t sum0 = 0, sum1 = 0;
    for (int32_t left = p->positions; left > 0; left -= 8) {
      const mve_pred16_t some = vctp16q((uint32_t)left);
      const int16x8_t m = vldrhq_gather_shifted_offset_z_s16(mantissa, to_mantissa, some);
      sum0 = vmlaldavaq_s16(sum0, m, vldrhq_gather_shifted_offset_z_s16(hidden, to_hidden, some));
      sum1 = vmlaldavaq_s16(sum1, m, vldrhq_gather_shifted_offset_z_s16(hidden + other, to_hidden, some));
      mantissa += 8 * p->output_c;
      hidden += 8 * p->rank;
    }
    gradient[r] = (int32_t)tp_round_shift_s64(sum0, shift);
    gradient[r + other] = (int32_t)tp_round_shift_s64(sum1, shift);
    any |= gradient[r] | gradient[r + other];
  }
  return any != 0;
}

void tp_lora_backward_hidden_mve_s16(const tp_lora_backward_params *params, const tp_bfp *d_acc, const int8_t *lora_B,
                                     const int8_t *lora_shift, const int8_t *hidden_shift, const int32_t *l1,
                                     tp_bfp *d_hidden, void *scratch) {
  int8_t *up = scratch; /* by how much mantissas of each channel are shifted to the left */
  const int32_t channels = params->output_c;
  const int32_t rank = params->rank;
  const uint16x8_t to_row = offsets_of(rank);
  int32_t shift_min = lora_shift[0];
  for (int32_t c = 1; c < channels; c++) {
    shift_min = tp_min_s32(shift_min, lora_shift[c]);
  }
  const int32_t narrow = tp_accumulator_shift(d_acc->peak, l1[1]);
  for (int32_t c = 0; c < channels; c++) {
    up[c] = (int8_t)-tp_min_s32(narrow + lora_shift[c] - shift_min, 30);
  }
  tp_narrowing to = tp_narrow_within(tp_round_shift_s64(d_acc->peak, narrow) * l1[1]);
  const int16_t *g = d_acc->mantissa;
  int16_t *result = d_hidden->mantissa;
  for (int32_t p = 0; p < params->positions; p++) {
    for (int32_t r = 0; r < rank; r += 2) {
      const int32_t other = tp_min_s32(1, rank - r - 1);
      int32_t sum0 = 0, sum1 = 0;
      for (int32_t c = 0; c < channels; c += 8) {
        const mve_pred16_t some = vctp16q((uint32_t)(channels - c));
        const int16x8_t m = vrshlq_s16(vldrhq_z_s16(g + c, some), vldrbq_z_s16(up + c, some));
        const int8_t *b = lora_B + c * rank + r;
        sum0 = vmladavaq_s16(sum0, m, vldrbq_gather_offset_z_s16(b, to_row, some));
        sum1 = vmladavaq_s16(sum1, m, vldrbq_gather_offset_z_s16(b + other, to_row, some));
      }
      tp_put_mantissa(&to, sum0, result + r);
      tp_put_mantissa(&to, sum1, result + r + other);
    }
    g += channels;
    result += rank;
  }
  tp_finish(&to, d_acc->exponent + narrow - shift_min - hidden_shift[0], d_hidden);
}

#endif
