#include <string.h>

#include "tinypeft/tp_kernels_dsp_backward.h"
#include "tinypeft/tp_kernels_dsp_lora.h"
#include "tinypeft/tp_pairs.h"

#define ROWS 4
/* What is in front of the words of some rows. */
#define BLOCK (ROWS + 1)
/* With a larger shift what rounds could leave the sums of packed rows. */
#define SHIFT_MAX 15
#define EVERY_LOW 0x00FF00FFu

/* A as it lies: each row `lines` of `size` elements, which are rounded up to `width`, a multiple of 4, by zeros. */
typedef struct {
  int32_t rank, lines, size, width;
  int32_t offset, shift;
} rows_of_A;

/* Words of A in a routine's form for two inputs. */
static inline int32_t words_of(tp_lora_down_form form) {
  return form == TP_LORA_DOWN_ONE ? 1 : form == TP_LORA_DOWN_FOUR ? ROWS : 2;
}

static inline int32_t words_in(const rows_of_A *rows, tp_lora_down_form form) {
  return words_of(form) * rows->lines * rows->width / 2;
}

/* What becomes of the words of a row: they are written as they are, or as the high one of two rows, or added as the low
 * one. */
typedef enum { PLAIN, HIGH, LOW } place;

static inline uint32_t placed(place where, uint32_t before, uint32_t pair) {
  return where == PLAIN ? pair : where == HIGH ? (pair & EVERY_LOW) << 8 : tp_sadd16(before, pair);
}

/* Row r as words, even and odd elements of each four, `step` words apart, the odd ones `odd` words behind. Returns what
 * sums of it start from. */
static int32_t pack_row(const rows_of_A *rows, const int8_t *lora_A, int32_t r, int32_t step, int32_t odd, place where,
                        uint32_t *words) {
  const int8_t *line = lora_A + r * rows->lines * rows->size;
  int32_t sum = 0;
  for (int32_t n = 0; n < rows->lines; n++, line += rows->size) {
    for (int32_t i = 0; i < rows->size; i += 4, words += step) {
      const uint32_t four = tp_load_word_of(line, i, rows->size);
      const uint32_t even = tp_sxtb16(four), next = tp_sxtb16_ror8(four);
      sum = tp_smlad(even, 0x00010001u, tp_smlad(next, 0x00010001u, sum));
      words[0] = placed(where, words[0], even);
      words[odd] = placed(where, words[odd], next);
    }
  }
  return rows->offset * sum + tp_half_of(rows->shift);
}

/* Rows from `first` on as a routine takes them: what their sums start from and the shift, then the words. */
static void pack(const rows_of_A *rows, const int8_t *lora_A, int32_t first, tp_lora_down_form form, int32_t *group) {
  const int packed = form == TP_LORA_DOWN_PACKED;
  const int32_t odd = words_of(form), count = packed ? ROWS : odd;
  const int32_t there = tp_min_s32(count, rows->rank - first);
  uint32_t *words = (uint32_t *)group + BLOCK;
  int32_t start[ROWS] = {0, 0, 0, 0};
  if (there < count) { /* the others are zeros */
    memset(words, 0, (size_t)words_in(rows, form) * sizeof *words);
  }
  for (int32_t j = 0; j < there; j++) {
    const place where = !packed ? PLAIN : j < 2 ? HIGH : LOW;
    start[j] = pack_row(rows, lora_A, first + j, 2 * odd, odd, where, words + (packed ? j % 2 : j));
  }
  for (int32_t j = 0; j < 2 && packed; j++) { /* as the words: in front of low it is 256 * high + low */
    const int32_t low = start[2 + j];
    group[2 * j] = (int32_t)((uint32_t)start[j] << 8) + low;
    group[2 * j + 1] = low;
  }
  if (!packed) {
    memcpy(group, start, (size_t)count * sizeof *group);
  }
  group[count] = rows->shift;
}

/* Whether a value is -128, of which two do not fit a halfword. */
static int has_least(const int8_t *values, int32_t count) {
  int32_t least = 0;
  for (; count >= 4; count -= 4, values += 4) {
    const uint32_t four = tp_load_word(values);
    least |= (int32_t)(tp_min_s8x4(four, 0x81818181u) ^ 0x81818181u);
  }
  for (; count > 0; count--) {
    least |= *values++ == INT8_MIN;
  }
  return least != 0;
}

/* All of A at `count` positions of a line, as `groups` hold it. */
static void down(const tp_lora_down_dsp_params *params, const rows_of_A *rows, const int8_t *input, int32_t count,
                 const int32_t *groups, int16_t *hidden) {
  for (int32_t r = 0; r < rows->rank; r += ROWS) {
    const int whole = rows->rank - r >= ROWS;
    const uint32_t *words = (const uint32_t *)groups + BLOCK;
    (whole ? params->fours : params->rest)(input, words, hidden + r, groups, count);
    groups += BLOCK + words_in(rows, whole ? params->fours_form : params->rest_form);
  }
}

void tp_lora_down_dsp_s8(const tp_lora_down_dsp_params *params, const int8_t *input, const int8_t *lora_A,
                         const int8_t *hidden_shift, int16_t *hidden, void *scratch) {
  const tp_window *w = &params->down.window;
  const int pointwise = params->down.pointwise;
  const int32_t size = pointwise ? w->input_c : w->kernel_w * w->input_c;
  const rows_of_A rows = {w->output_c,       pointwise ? 1 : w->kernel_h, size, (size + 3) / 4 * 4,
                          params->down.input_offset, hidden_shift[0]};
  if (rows.shift < 0 || rows.shift > SHIFT_MAX || has_least(lora_A, rows.rank * rows.lines * size)) {
    tp_lora_down_s8(&params->down, input, lora_A, hidden_shift, hidden);
    return;
  }
  int32_t *behind = scratch;
  for (int32_t r = 0; r < rows.rank; r += ROWS) {
    const tp_lora_down_form form = rows.rank - r >= ROWS ? params->fours_form : params->rest_form;
    pack(&rows, lora_A, r, form, behind);
    behind += BLOCK + words_in(&rows, form);
  }
  if (pointwise) {
    const int dense = w->stride_w == 1 && w->stride_h == 1;
    const int32_t lines = dense ? 1 : w->output_h;
    const int32_t positions = dense ? w->output_h * w->output_w : w->output_w;
    for (int32_t y = 0; y < lines; y++) {
      down(params, &rows, input + y * w->stride_h * w->input_w * w->input_c, positions, scratch,
           hidden + y * positions * rows.rank);
    }
    return;
  }
  int8_t *const held = (int8_t *)behind;
  const int32_t extent = (w->kernel_h - 1) * w->dilation_h + 1;
  int32_t first = 0; /* of the padded image, in `held` */
  int32_t end = 0;   /* behind the last that is there */
  for (int32_t oy = 0; oy < w->output_h; oy++) {
    const int32_t top = oy * w->stride_h;
    if (top + extent > first + params->rows) {
      end = tp_max_s32(end, top);
      memmove(held, held + (top - first) * params->pitch, (size_t)((end - top) * params->pitch));
      first = top;
    }
    for (; end < top + extent; end++) {
      tp_padded_row_dsp(w, input, end - w->pad_top, -rows.offset, params->pitch, held + (end - first) * params->pitch);
    }
    down(params, &rows, held + (top - first) * params->pitch, w->output_w, scratch,
         hidden + oy * w->output_w * rows.rank);
  }
}
