#include "tinypeft/tp_kernels_dsp_depthwise.h"

/* Halfwords of a plane. */
static int32_t plane_size(const tp_planes *planes) { return planes->rows * planes->pitch; }

static void fill(uint32_t *words, int32_t count, uint32_t value) {
  for (int32_t i = 0; i < count; i++) {
    words[i] = value;
  }
}

/* A row of the image, from its first column that is read, to a row of the planes of all channels. */
static void widen_row(const tp_planes *planes, const int8_t *x, int16_t *row) {
  const int32_t size = plane_size(planes), channels = planes->input_c, rest = channels & 3;
  if (planes->widen == NULL) {
    for (int32_t c = 0; c < channels; c++) {
      for (int32_t i = 0; i < planes->columns; i++) {
        row[c * size + i] = x[i * channels + c];
      }
    }
    return;
  }
  planes->widen(x, row, channels / 4);
  if (rest != 0) { /* the last four, of which some have been there before */
    planes->widen(x + channels - 4, row + (channels - 4) * size, 1);
  }
}

/* Row `row` of the padded image to its place in the ring. */
static void put_row(const tp_planes *planes, const int8_t *input, int32_t row, int16_t *ring) {
  int16_t *place = ring + row % planes->rows * planes->pitch + planes->left;
  const int32_t y = row - planes->pad_top;
  if (y >= 0 && y < planes->input_h) {
    widen_row(planes, input + y * planes->row_bytes + planes->first, place);
    return;
  }
  for (int32_t c = 0; c < planes->input_c; c++) {
    for (int32_t i = 0; i < planes->columns; i++) {
      place[i] = (int16_t)planes->padding;
    }
    place += plane_size(planes);
  }
}

/* Rows `next` to `end` of the padded image that the ring lacks, but for those in front of `first`; returns `end`. */
static int32_t put_rows(const tp_planes *planes, const int8_t *input, int32_t next, int32_t first, int32_t end,
                        int16_t *ring) {
  for (int32_t row = next > first ? next : first; row < end; row++) {
    put_row(planes, input, row, ring);
  }
  return end;
}

void tp_depthwise_ring_dsp(const tp_depthwise_held_params *params, const int8_t *input, int8_t *output, void *scratch) {
  const tp_planes *planes = &params->planes;
  int16_t *ring = scratch;
  fill(scratch, plane_size(planes) / 2 * planes->input_c, (uint32_t)planes->padding);
  int32_t next = 0;
  for (int32_t y = 0; y < params->output_h; y++) {
    const int32_t first = y * params->stride_h, phase = first % planes->rows;
    next = put_rows(planes, input, next, first, first + planes->rows, ring);
    if (params->depth_multiplier == 1) {
      params->routine(ring, output, params->table, phase);
    } else {
      const int32_t *table = params->table;
      const int16_t *plane = ring;
      for (int32_t c = 0, k = 0; c < planes->input_c; c++) {
        for (int32_t j = 0; j < params->depth_multiplier; j++) {
          params->routine(plane, output + k++, table, phase);
          table += params->table_words;
        }
        plane += plane_size(planes);
      }
    }
    output += params->output_row_bytes;
  }
}

void tp_depthwise_planes_dsp(const tp_depthwise_held_params *params, const int8_t *input, int8_t *output,
                             void *scratch) {
  const tp_planes *planes = &params->planes;
  const int32_t begin = planes->pad_top > 0 ? 0 : -planes->pad_top;
  const int32_t below = planes->rows - planes->pad_top; /* the row of the image behind the last that is read */
  const int32_t end = below < planes->input_h ? below : planes->input_h;
  fill(scratch, plane_size(planes) * 2, (uint32_t)planes->padding);
  for (int32_t c = 0; c < planes->input_c; c += 4) {
    int16_t *row = (int16_t *)scratch + (begin + planes->pad_top) * planes->pitch + planes->left;
    if (end > begin && planes->columns > 0) {
      planes->widen(input + begin * planes->row_bytes + planes->first + c, row, end - begin);
    }
    params->routine(scratch, output + c, params->table + c * params->table_words, 0);
  }
}

/* Pointers to the data of all segments, for the outputs whose first row of the padded image is `first`. */
static void point(const tp_depthwise_loaded_params *params, const int16_t *plane, int32_t first,
                  const int16_t **segments) {
  for (int32_t i = 0; i < params->kernel_h; i++) {
    const int32_t row = (first + i * params->dilation_h) % params->planes.rows;
    const int16_t *data = plane + row * params->planes.pitch;
    for (int32_t j = 0; j < params->row_segments; j++) {
      *segments++ = data;
      data += params->segment_step;
    }
  }
}

void tp_depthwise_segments_dsp(const tp_depthwise_loaded_params *params, const int8_t *input, int8_t *output,
                               void *scratch) {
  const tp_planes *planes = &params->planes;
  const int16_t **segments = scratch;
  int16_t *ring = (int16_t *)(void *)(segments + params->kernel_h * params->row_segments);
  fill((uint32_t *)(void *)ring, plane_size(planes) / 2 * planes->input_c, (uint32_t)planes->padding);
  int32_t next = 0;
  for (int32_t y = 0; y < params->output_h; y++) {
    const int32_t first = y * params->stride_h;
    next = put_rows(planes, input, next, first, first + planes->rows, ring);
    const int32_t *table = params->table;
    const int16_t *plane = ring;
    int8_t *target = output;
    for (int32_t c = 0; c < planes->input_c; c++) {
      for (int32_t j = 0; j < params->depth_multiplier; j++) {
        point(params, plane, first, segments);
        params->routine(segments, target++, table);
        table += params->table_words;
      }
      plane += plane_size(planes);
    }
    output += params->output_row_bytes;
  }
}
