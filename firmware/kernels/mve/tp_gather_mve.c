#include "tinypeft/tp_mve.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)

/* `runs` pieces of `run` bytes, which are `step` apart, behind each other. */
static inline void copy_runs(const int8_t *from, int32_t runs, int32_t run, int32_t step, int8_t *row) {
  for (; runs > 0; runs--) {
    tp_copy_mve_s8(row, from, run);
    from += step;
    row += run;
  }
}

/* The same of whole vectors. */
static inline void copy_whole_runs(const int8_t *from, int32_t runs, int32_t run, int32_t step, int8_t *row) {
  int8x16_t chunk;
  __asm__ volatile(
      "1: dls lr, %[chunks]\n"
      "2: vldrb.8 %q[chunk], [%[from]], #16\n"
      "vstrb.8 %q[chunk], [%[row]], #16\n"
      "le lr, 2b\n"
      "add %[from], %[from], %[gap]\n"
      "subs %[runs], %[runs], #1\n"
      "bne 1b\n"
      : [from] "+&r"(from), [row] "+&r"(row), [runs] "+&r"(runs), [chunk] "=&w"(chunk)
      : [chunks] "r"(run / 16), [gap] "r"(step - run)
      : "lr", "cc", "memory");
}

/* The same of at most 16 bytes each, for which 16 are read and written. */
static inline void copy_short_runs(const int8_t *from, int32_t runs, int32_t run, int32_t step, int8_t *row) {
  int8x16_t chunk;
  __asm__ volatile(
      "dls lr, %[runs]\n"
      "1: vldrb.8 %q[chunk], [%[from]]\n"
      "add %[from], %[from], %[step]\n"
      "vstrb.8 %q[chunk], [%[row]]\n"
      "add %[row], %[row], %[run]\n"
      "le lr, 1b\n"
      : [from] "+&r"(from), [row] "+&r"(row), [chunk] "=&w"(chunk)
      : [runs] "r"(runs), [run] "r"(run), [step] "r"(step)
      : "lr", "memory");
}

/* The row of a position whose first tap lies at (y,x), some of its taps outside the image. */
static TP_NOINLINE void gather_at_border(const tp_conv_mve_params *params, const int8_t *input, int32_t y, int32_t x,
                                         int8_t *row) {
  const tp_window *w = &params->window;
  const int32_t c = w->input_c;
  const tp_taps rows = tp_window_taps(0, 0, -y, w->dilation_h, w->kernel_h, w->input_h);
  const tp_taps columns = tp_window_taps(0, 0, -x, w->dilation_w, w->kernel_w, w->input_w);
  tp_fill_mve_s8(row, params->padding, w->kernel_h * w->kernel_w * c);
  for (int32_t i = rows.begin; i < rows.end; i++) {
    const int8_t *from = input + ((y + i * w->dilation_h) * w->input_w + x + columns.begin * w->dilation_w) * c;
    int8_t *to = row + (i * w->kernel_w + columns.begin) * c;
    if (w->dilation_w == 1) {
      tp_copy_mve_s8(to, from, (columns.end - columns.begin) * c);
    } else {
      copy_runs(from, columns.end - columns.begin, c, w->dilation_w * c, to);
    }
  }
}

/* The rows of `count` positions of a line inside the image, the first tap of the first at `from`. */
static TP_NOINLINE void gather_line(const tp_conv_mve_params *params, const int8_t *from, const int8_t *end,
                                    int32_t count, int8_t *rows) {
  const tp_window *w = &params->window;
  const int32_t run = w->kernel_w * w->input_c;
  const int32_t step = w->dilation_h * w->input_w * w->input_c;
  const int32_t next = w->stride_w * w->input_c;
  if (w->kernel_h == 1 && run == next && run == params->row_bytes) {
    tp_copy_mve_s8(rows, from, count * run);
    return;
  }
  if (run % 16 == 0) {
    for (; count > 0; count--) {
      copy_whole_runs(from, w->kernel_h, run, step, rows);
      from += next;
      rows += params->row_bytes;
    }
    return;
  }
  if (run < 16) {
    const int32_t room = (int32_t)(end - from) - (w->kernel_h - 1) * step - 16; /* behind 16 bytes of the last run */
    const int32_t safe = room < 0 ? 0 : tp_min_s32(count, room / next + 1);
    if (w->kernel_h == 1 && safe > 0) {
      copy_short_runs(from, safe, params->row_bytes, next, rows);
    }
    for (int32_t i = 0; w->kernel_h > 1 && i < safe; i++) {
      copy_short_runs(from + i * next, w->kernel_h, run, step, rows + i * params->row_bytes);
    }
    from += safe * next;
    rows += safe * params->row_bytes;
    count -= safe;
  }
  for (; count > 0; count--) {
    copy_runs(from, w->kernel_h, run, step, rows);
    from += next;
    rows += params->row_bytes;
  }
}

void tp_gather_rows_mve_s8(const tp_conv_mve_params *params, const int8_t *input, int32_t first, int32_t count,
                           int8_t *rows) {
  const tp_window *w = &params->window;
  const int8_t *end = input + w->input_h * w->input_w * w->input_c;
  const int32_t last_y = w->dilation_w == 1 ? w->input_h - (w->kernel_h - 1) * w->dilation_h : 0;
  const int32_t last_x = w->input_w - (w->kernel_w - 1) * w->dilation_w;
  int32_t oy = first / w->output_w;
  int32_t ox = first - oy * w->output_w;
  while (count > 0) {
    const int32_t y = oy * w->stride_h - w->pad_top;
    const int32_t x = ox * w->stride_w - w->pad_left;
    int32_t line = 1;
    if (y < 0 || y >= last_y || x < 0 || x >= last_x) {
      gather_at_border(params, input, y, x, rows);
    } else {
      line = tp_min_s32(tp_min_s32(count, w->output_w - ox), (last_x - 1 - x) / w->stride_w + 1);
      gather_line(params, input + (y * w->input_w + x) * w->input_c, end, line, rows);
    }
    rows += line * params->row_bytes;
    count -= line;
    ox += line;
    if (ox == w->output_w) {
      ox = 0;
      oy++;
    }
  }
}

#endif
