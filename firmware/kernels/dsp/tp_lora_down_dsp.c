#include "tinypeft/tp_kernels.h"
#include "tinypeft/tp_kernels_dsp_backward.h"
#include "tinypeft/tp_pairs.h"

#define ROWS 4
#define POSITIONS 4

/* Four input channels of four rows of A: channels 0 and 2, and 1 and 3. */
typedef struct {
  uint32_t even[ROWS], odd[ROWS];
} four_rows;

/* The same of one row. */
typedef struct {
  uint32_t even, odd;
} one_row;

/* A, widened: blocks of four rows, then the others by themselves. A row is `lines` of `width` elements, rounded up to a
 * multiple of 4 by zeros, which meet inputs `step` apart. */
typedef struct {
  int32_t lines, width, step;
  int32_t rank, shift;
  tp_lora_down_routine *four; /* NULL where there is none */
  const int32_t *start; /* (rank): what the zero point adds, and what rounds */
  const uint32_t *packed;
} rows_of_A;

/* Four elements of a line of `size` from i on, zeros behind it. */
static uint32_t elements_of(const int8_t *line, int32_t size, int32_t i) {
  if (i + 4 <= size) {
    return tp_load_word(line + i);
  }
  uint32_t word = 0;
  for (int32_t n = 0; i + n < size; n++) {
    word |= (uint32_t)(uint8_t)line[i + n] << (8 * n);
  }
  return word;
}

/* `size`: elements of a line of A as it lies. */
static rows_of_A pack(const int8_t *lora_A, int32_t lines, int32_t size, int32_t step, int32_t rank,
                      int32_t input_offset, int32_t shift, tp_lora_down_routine *four, uint32_t *scratch) {
  int32_t *start = (int32_t *)(void *)scratch;
  const int32_t width = (size + 3) / 4 * 4;
  const rows_of_A rows = {lines, width, step, rank, shift, four, start, scratch + rank};
  uint32_t *packed = scratch + rank;
  for (int32_t r = 0; r < rank;) {
    const int32_t together = rank - r >= ROWS ? ROWS : 1;
    for (int32_t j = 0; j < together; j++, r++) {
      int32_t sum = 0;
      uint32_t *target = packed + j;
      for (int32_t n = 0; n < lines; n++, lora_A += size) {
        for (int32_t i = 0; i < size; i += 4, target += 2 * together) {
          const uint32_t word = elements_of(lora_A, size, i);
          target[0] = tp_sxtb16(word);
          target[together] = tp_sxtb16_ror8(word);
          sum = tp_smlad(target[0], 0x00010001u, tp_smlad(target[together], 0x00010001u, sum));
        }
      }
      start[r] = input_offset * sum + tp_half_of(shift);
    }
    packed += together * lines * width / 2;
  }
  return rows;
}

/* hidden[j] of one position for four rows. */
static TP_NOINLINE void four_at_once(const rows_of_A *rows, const int8_t *x, const four_rows *a, const int32_t *start,
                                     int16_t *hidden) {
  int32_t a0 = start[0], a1 = start[1], a2 = start[2], a3 = start[3];
  const int32_t skip = rows->step - rows->width;
  for (int32_t line = rows->lines; line > 0; line--, x += skip) {
    for (const int8_t *end = x + rows->width; x < end; a++) {
      const uint32_t word = tp_load_word(x);
      const uint32_t even = tp_sxtb16(word), odd = tp_sxtb16_ror8(word);
      x += 4;
      a0 = tp_smlad(even, a->even[0], a0);
      a1 = tp_smlad(even, a->even[1], a1);
      a2 = tp_smlad(even, a->even[2], a2);
      a3 = tp_smlad(even, a->even[3], a3);
      a0 = tp_smlad(odd, a->odd[0], a0);
      a1 = tp_smlad(odd, a->odd[1], a1);
      a2 = tp_smlad(odd, a->odd[2], a2);
      a3 = tp_smlad(odd, a->odd[3], a3);
    }
  }
  hidden[0] = (int16_t)(a0 >> rows->shift);
  hidden[1] = (int16_t)(a1 >> rows->shift);
  hidden[2] = (int16_t)(a2 >> rows->shift);
  hidden[3] = (int16_t)(a3 >> rows->shift);
}

/* acc[j] += one row of A at four positions, `distance` apart. */
static TP_NOINLINE void one_at_four(const rows_of_A *rows, const int8_t *x, int32_t distance, const one_row *a,
                                    int32_t acc[POSITIONS]) {
  int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
  const int8_t *x2 = x + 2 * distance;
  const int32_t skip = rows->step - rows->width;
  for (int32_t line = rows->lines; line > 0; line--, x += skip, x2 += skip) {
    for (const int8_t *end = x + rows->width; x < end; a++) {
      const uint32_t even = a->even, odd = a->odd;
      const uint32_t w0 = tp_load_word(x), w1 = tp_load_word(x + distance);
      const uint32_t w2 = tp_load_word(x2), w3 = tp_load_word(x2 + distance);
      x += 4;
      x2 += 4;
      a0 = tp_smlad(tp_sxtb16(w0), even, a0);
      a0 = tp_smlad(tp_sxtb16_ror8(w0), odd, a0);
      a1 = tp_smlad(tp_sxtb16(w1), even, a1);
      a1 = tp_smlad(tp_sxtb16_ror8(w1), odd, a1);
      a2 = tp_smlad(tp_sxtb16(w2), even, a2);
      a2 = tp_smlad(tp_sxtb16_ror8(w2), odd, a2);
      a3 = tp_smlad(tp_sxtb16(w3), even, a3);
      a3 = tp_smlad(tp_sxtb16_ror8(w3), odd, a3);
    }
  }
  acc[0] = a0;
  acc[1] = a1;
  acc[2] = a2;
  acc[3] = a3;
}

/* A row of A at `count` positions. */
static void one_row_of_A(const rows_of_A *rows, int32_t r, const one_row *packed, const int8_t *input,
                         int32_t distance, int32_t count, int16_t *hidden) {
  const int32_t start = rows->start[r];
  const int enough = count >= POSITIONS;
  for (int32_t p = 0; p < count; p += enough ? POSITIONS : 1) {
    int32_t acc[POSITIONS] = {start, start, start, start};
    const int32_t first = enough ? tp_min_s32(p, count - POSITIONS) : p; /* the last four overlap with others */
    one_at_four(rows, input + first * distance, enough ? distance : 0, packed, acc);
    for (int32_t j = 0; j < (enough ? POSITIONS : 1); j++) {
      hidden[(first + j) * rows->rank] = (int16_t)(acc[j] >> rows->shift);
    }
  }
}

/* Four rows of A at `count` positions. */
static void four_rows_of_A(const rows_of_A *rows, int32_t r, const four_rows *packed, const int8_t *input,
                           int32_t distance, int32_t count, int16_t *hidden) {
  if (rows->four == NULL || count < 2) {
    for (int32_t p = 0; p < count; p++) {
      four_at_once(rows, input + p * distance, packed, rows->start + r, hidden + p * rows->rank);
    }
    return;
  }
  int32_t block[ROWS + 1];
  memcpy(block, rows->start + r, ROWS * sizeof *block);
  block[ROWS] = rows->shift;
  for (int32_t p = 0; p < count; p += 2) {
    const int32_t first = tp_min_s32(p, count - 2); /* the last two may overlap with others */
    rows->four(input + first * distance, packed->even, hidden + first * rows->rank, block);
  }
}

/* All of A at `count` positions, `distance` elements apart. */
static void down(const rows_of_A *rows, const int8_t *input, int32_t distance, int32_t count, int16_t *hidden) {
  const uint32_t *packed = rows->packed;
  const int32_t size = rows->lines * rows->width;
  int32_t r = 0;
  for (; r + ROWS <= rows->rank; r += ROWS, packed += ROWS * size / 2) {
    four_rows_of_A(rows, r, (const four_rows *)(const void *)packed, input, distance, count, hidden + r);
  }
  for (; r < rows->rank; r++, packed += size / 2) {
    one_row_of_A(rows, r, (const one_row *)(const void *)packed, input, distance, count, hidden + r);
  }
}

void tp_lora_down_dsp_s8(const tp_lora_down_dsp_params *params, const int8_t *input, const int8_t *lora_A,
                         const int8_t *hidden_shift, int16_t *hidden, void *scratch) {
  const tp_window *w = &params->down.window;
  const int32_t offset = params->down.input_offset;
  const int32_t distance = w->stride_w * w->input_c;
  if (params->down.pointwise) {
    const rows_of_A rows = pack(lora_A, 1, w->input_c, 0, w->output_c, offset, hidden_shift[0], params->four, scratch);
    const int dense = w->stride_w == 1 && w->stride_h == 1;
    const int32_t lines = dense ? 1 : w->output_h;
    const int32_t positions = dense ? w->output_h * w->output_w : w->output_w;
    for (int32_t y = 0; y < lines; y++) {
      down(&rows, input + y * w->stride_h * w->input_w * w->input_c, distance, positions,
           hidden + y * positions * rows.rank);
    }
    return;
  }
  const rows_of_A rows = pack(lora_A, w->kernel_h, w->kernel_w * w->input_c, w->dilation_h * params->pitch, w->output_c,
                              offset, hidden_shift[0], params->four, scratch);
  int8_t *const held = (int8_t *)scratch + rows.rank * (4 + 2 * rows.lines * rows.width);
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
      tp_padded_row_dsp(w, input, end - w->pad_top, -offset, params->pitch, held + (end - first) * params->pitch);
    }
    down(&rows, held + (top - first) * params->pitch, distance, w->output_w, hidden + oy * w->output_w * rows.rank);
  }
}
