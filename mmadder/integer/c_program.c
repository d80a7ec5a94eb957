/* @head */
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MMADDER_WEIGHTS
#include "network.h"

/* @sizes */

#define HALF (1 << (FRACTION - 1))
#define USES_CODES (USES_ADDER || USES_CONVOLUTION)
#define USES_PRODUCTS (USES_CONVOLUTION || USES_NUMBERS)
#define USES_LAYER (USES_CODES || USES_NUMBERS)

#if INT_MAX < 2147483647
#error "int has less than 32 bits here, which sizes of maps need"
#endif

// Maps are (height, width, channels). Filters and the windows they lie on are
// read BLOCK bytes at a time, which compilers vectorize, for PIXELS windows at
// a time, so that a filter comes from memory once for all of these.

struct size {
  int h, w;
};

// Windows of one map, one for each position of another.
struct windows {
  int channels;
  struct size in, out, kernel, stride, padding, dilation;
};

// sign 2^left, or what product is, where that is not 0.
struct factor {
  int sign, left;
  int32_t product;
};

struct layer {
  struct windows windows;
  int filters;
  // A filter is `pieces` strings of `piece` bytes and a zero that ends them.
  int pieces, piece;
  const unsigned char* weight;
  const int32_t* multiplier;          // NULL: powers are there instead
  const struct mmadder_power* power;  // of multiplier / 2^shift
  const int32_t* bias;
  int shift;
  const uint8_t* zeros;  // zero points of the picture, NULL: the next
  int in_zero, out_zero, low, high;
  int is_centered, has_residual, residual_zero;
  struct factor center, residual;
};

// Reused from step to step: not for two threads at a time.
#if MAP_BYTES > 0
static uint8_t maps[MAP_BYTES];
#endif
#if USES_LAYER
static int32_t sums[PIXELS * MOST_FILTERS];
#endif

// ---------------------------------------------------------------- numbers --

#if USES_CODES || USES_SUM
// The floor of value / 2^bits. C leaves >> of negative numbers to compilers.
static inline int64_t shift_right(int64_t value, int bits) {
  return value < 0 ? ~(~value >> bits) : value >> bits;
}
#endif

#if USES_CODES || USES_SUM || USES_AVERAGE
static inline int32_t clip(int64_t value, int32_t low, int32_t high) {
  return (int32_t)(value < low ? low : value > high ? high : value);
}
#endif

#if USES_CODES || USES_SUM
// From 1/2^FRACTION of a code.
static inline uint8_t code(int32_t t, int zero, int low, int high) {
  return (uint8_t)clip(zero + shift_right(t + HALF, FRACTION), low, high);
}
#endif

#if USES_ADDER
// sign value / 2^right, to the nearest, halves up.
static inline int64_t by_power(int64_t value, int sign, int right) {
  if (sign == 0) {
    return 0;
  }
  if (sign < 0) {
    value = -value;
  }
  if (right > 0) {
    return shift_right(value + ((int64_t)1 << (right - 1)), right);
  }
  return value < 0
      ? -(int64_t)((uint64_t)-value << -right)
      : (int64_t)((uint64_t)value << -right);
}

static inline int64_t times(int64_t value, struct factor factor) {
#if ADDER_PRODUCTS
  if (factor.product != 0) {
    return value * factor.product;
  }
#endif
  return by_power(value, factor.sign, -factor.left);
}
#endif

#if USES_CONVOLUTION || ADDER_PRODUCTS
static inline int64_t by_product(
    int64_t value, int32_t multiplier, int shift) {
  return shift_right(value * multiplier + ((int64_t)1 << (shift - 1)), shift);
}
#endif

#if USES_CODES
// t of a sum that has been brought to scale, before a residual.
static inline int32_t with_bias(int64_t scaled, int32_t bias) {
  return clip(scaled, -1073741824, 1073741823) + bias;
}
#endif

#if USES_LAYER
// The place of a tap of a window in its map, or -1 outside.
static inline int place(
    const struct windows* windows, int position, int i, int j) {
  const int y = position / windows->out.w * windows->stride.h -
      windows->padding.h + i * windows->dilation.h;
  const int x = position % windows->out.w * windows->stride.w -
      windows->padding.w + j * windows->dilation.w;
  return y < 0 || y >= windows->in.h || x < 0 || x >= windows->in.w
      ? -1
      : y * windows->in.w + x;
}
#endif

// ------------------------------------------------------------------ steps --

#if USES_ADDER
static uint8_t codes[PIXELS * MOST_CODES];

// The codes of a window, those outside of the map at its zero point.
static void gather_codes(
    const struct layer* layer, const uint8_t* map, int position,
    uint8_t* out) {
  const struct windows* windows = &layer->windows;
  const size_t channels = (size_t)windows->channels;
  const uint8_t* end = out + layer->pieces * layer->piece;
  for (int i = 0; i < windows->kernel.h; ++i) {
    for (int j = 0; j < windows->kernel.w; ++j, out += channels) {
      const int from = place(windows, position, i, j);
      if (from < 0) {
        memset(out, layer->in_zero, channels);
      } else {
        memcpy(out, map + (size_t)from * channels, channels);
      }
    }
  }
  memset(out, 0, (size_t)(end - out));
}

// The sum of |x - w|.
static inline int32_t distance(
    const struct layer* layer, const uint8_t* x, const unsigned char* w) {
  int32_t sum = 0;
  for (int p = 0; p < layer->pieces; ++p, ++w) {
    for (int i = 0; i < layer->piece; i += BLOCK, x += BLOCK, w += BLOCK) {
      for (int b = 0; b < BLOCK; ++b) {
        sum += abs(x[b] - w[b]);
      }
    }
  }
  return sum;
}

// The codes of one position, from its distances to the filters.
static void adder_codes(
    const struct layer* layer, const int32_t* distances,
    const uint8_t* residual, uint8_t* out) {
  int32_t total = 0;
  if (layer->is_centered) {
    for (int o = 0; o < layer->filters; ++o) {
      total += distances[o];
    }
  }
  for (int o = 0; o < layer->filters; ++o) {
    const int64_t sum = total - times(distances[o], layer->center);
    int32_t t;
#if ADDER_PRODUCTS
    if (layer->multiplier != NULL) {
      t = with_bias(
          by_product(sum, layer->multiplier[o], layer->shift), layer->bias[o]);
    } else
#endif
      t = with_bias(by_power(sum, layer->power[o].sign, layer->power[o].right),
                    layer->bias[o]);
    if (layer->has_residual) {
      t += (int32_t)times(residual[o] - layer->residual_zero, layer->residual);
    }
    out[o] = code(t, layer->out_zero, layer->low, layer->high);
  }
}

static void adder(const struct layer* layer, const uint8_t* map,
                  const uint8_t* residual, uint8_t* out) {
  const int positions = layer->windows.out.h * layer->windows.out.w;
  const int filters = layer->filters, length = layer->pieces * layer->piece;
  const int next = length + layer->pieces;
  for (int p = 0; p < positions; p += PIXELS) {
    const int count = positions - p < PIXELS ? positions - p : PIXELS;
    for (int n = 0; n < count; ++n) {
      gather_codes(layer, map, p + n, codes + n * length);
    }
    const unsigned char* weight = layer->weight;
    for (int o = 0; o < filters; ++o, weight += next) {
      for (int n = 0; n < count; ++n) {
        sums[n * filters + o] = distance(layer, codes + n * length, weight);
      }
    }
    for (int n = 0; n < count; ++n) {
      const size_t at = (size_t)(p + n) * (size_t)filters;
      adder_codes(layer, sums + n * filters,
                  layer->has_residual ? residual + at : NULL, out + at);
    }
  }
}
#endif

#if USES_PRODUCTS
static int16_t values[PIXELS * MOST_VALUES];

// The codes of a window less their zero points, 0 outside of the map.
static void gather_values(
    const struct layer* layer, const uint8_t* map, int position,
    int16_t* out) {
  const struct windows* windows = &layer->windows;
  const int channels = windows->channels;
  const int16_t* end = out + layer->pieces * layer->piece;
  for (int i = 0; i < windows->kernel.h; ++i) {
    for (int j = 0; j < windows->kernel.w; ++j, out += channels) {
      const int from = place(windows, position, i, j);
      if (from < 0) {
        memset(out, 0, (size_t)channels * sizeof *out);
        continue;
      }
      const uint8_t* x = map + (size_t)from * (size_t)channels;
      for (int c = 0; c < channels; ++c) {
        out[c] = (int16_t)(x[c] -
                           (layer->zeros != NULL ? layer->zeros[c]
                                                 : layer->in_zero));
      }
    }
  }
  memset(out, 0, (size_t)(end - out) * sizeof *out);
}

static inline int32_t product(
    const struct layer* layer, const int16_t* x, const signed char* w) {
  int32_t sum = 0;
  for (int p = 0; p < layer->pieces; ++p, ++w) {
    for (int i = 0; i < layer->piece; i += BLOCK, x += BLOCK, w += BLOCK) {
      for (int b = 0; b < BLOCK; ++b) {
        sum += x[b] * w[b];
      }
    }
  }
  return sum;
}

// Into `sums`, for up to PIXELS positions from p on; returns how many.
static int products(const struct layer* layer, const uint8_t* map, int p) {
  const int positions = layer->windows.out.h * layer->windows.out.w;
  const int filters = layer->filters, length = layer->pieces * layer->piece;
  const int next = length + layer->pieces;
  const int count = positions - p < PIXELS ? positions - p : PIXELS;
  for (int n = 0; n < count; ++n) {
    gather_values(layer, map, p + n, values + n * length);
  }
  const signed char* weight = (const signed char*)layer->weight;
  for (int o = 0; o < filters; ++o, weight += next) {
    for (int n = 0; n < count; ++n) {
      sums[n * filters + o] = product(layer, values + n * length, weight);
    }
  }
  return count;
}

#if USES_CONVOLUTION
static void convolution(
    const struct layer* layer, const uint8_t* map, const uint8_t* residual,
    uint8_t* out) {
  const int positions = layer->windows.out.h * layer->windows.out.w;
  const int filters = layer->filters;
  for (int p = 0; p < positions; p += PIXELS) {
    const int count = products(layer, map, p);
    for (int i = 0; i < count * filters; ++i) {
      const size_t at = (size_t)p * (size_t)filters + (size_t)i;
      const int o = i % filters;
      int32_t t = with_bias(
          by_product(sums[i], layer->multiplier[o], layer->shift),
          layer->bias[o]);
      if (layer->has_residual) {
        t += (residual[at] - layer->residual_zero) * layer->residual.product;
      }
      out[at] = code(t, layer->out_zero, layer->low, layer->high);
    }
  }
}
#endif

#if USES_NUMBERS
// Of an output of int32, (channels, height, width).
static void convolution_numbers(
    const struct layer* layer, const uint8_t* map, int32_t* out) {
  const int positions = layer->windows.out.h * layer->windows.out.w;
  const int filters = layer->filters;
  for (int p = 0; p < positions; p += PIXELS) {
    const int count = products(layer, map, p);
    for (int n = 0; n < count; ++n) {
      for (int o = 0; o < filters; ++o) {
        out[(size_t)o * (size_t)positions + (size_t)(p + n)] =
            sums[n * filters + o] + layer->bias[o];
      }
    }
  }
}
#endif
#endif

#if USES_MAX_POOL
static void max_pool(
    const struct windows* windows, const uint8_t* map, uint8_t* out) {
  const int channels = windows->channels;
  for (int h = 0; h < windows->out.h; ++h) {
    for (int w = 0; w < windows->out.w; ++w, out += channels) {
      const int top = h * windows->stride.h - windows->padding.h;
      const int left = w * windows->stride.w - windows->padding.w;
      memset(out, 0, (size_t)channels);
      for (int y = top; y < top + windows->kernel.h; ++y) {
        for (int x = left; x < left + windows->kernel.w; ++x) {
          if (y < 0 || y >= windows->in.h || x < 0 || x >= windows->in.w) {
            continue;
          }
          const uint8_t* in = map +
              ((size_t)y * (size_t)windows->in.w + (size_t)x) *
                  (size_t)channels;
          for (int c = 0; c < channels; ++c) {
            out[c] = in[c] > out[c] ? in[c] : out[c];
          }
        }
      }
    }
  }
}
#endif

#if USES_AVERAGE
struct average {
  int channels, positions, in_zero, out_zero, low, high;
  int32_t multiplier;
  int shift;
};

static void average(
    const struct average* step, const uint8_t* map, uint8_t* out) {
  const int64_t whole = (int64_t)step->positions << step->shift;
  for (int c = 0; c < step->channels; ++c) {
    int64_t total = 0;
    for (int p = 0; p < step->positions; ++p) {
      total += map[(size_t)p * (size_t)step->channels + (size_t)c];
    }
    total -= (int64_t)step->positions * step->in_zero;
    total = total * step->multiplier + whole / 2;
    const int64_t mean = total / whole - (total % whole < 0);  // the floor
    out[c] = (uint8_t)clip(step->out_zero + mean, step->low, step->high);
  }
}
#endif

#if USES_SUM
struct sum {
  int channels;
  struct size left, right;
  int left_zero, right_zero, out_zero, low, high;
  int32_t left_multiplier, right_multiplier;
};

// The right map is seen at the nearest positions of the left one.
static void sum(const struct sum* step, const uint8_t* left,
                const uint8_t* right, uint8_t* out) {
  const int channels = step->channels;
  for (int h = 0; h < step->left.h; ++h) {
    const int y = h * step->right.h / step->left.h;
    for (int w = 0; w < step->left.w; ++w) {
      const int x = w * step->right.w / step->left.w;
      const uint8_t* nearest = right +
          ((size_t)y * (size_t)step->right.w + (size_t)x) * (size_t)channels;
      for (int c = 0; c < channels; ++c) {
        const int32_t t = (left[c] - step->left_zero) * step->left_multiplier +
            (nearest[c] - step->right_zero) * step->right_multiplier;
        out[c] = code(t, step->out_zero, step->low, step->high);
      }
      left += channels;
      out += channels;
    }
  }
}
#endif

#if USES_PLANES
// From (height, width, channels) to (channels, height, width).
static void planes(
    const uint8_t* map, int channels, int positions, uint8_t* out) {
  for (int c = 0; c < channels; ++c) {
    for (int p = 0; p < positions; ++p) {
      *out++ = map[(size_t)p * (size_t)channels + (size_t)c];
    }
  }
}
#endif

// ---------------------------------------------------------------- network --

/* @steps */

// ------------------------------------------------------------ the program --

#ifndef MMADDER_NO_MAIN
#include <stdio.h>

struct output {
  const char* name;
  int channels, height, width;
  const uint8_t* codes;    // one of these two is NULL
  const int32_t* numbers;
};

static uint8_t image[MMADDER_HEIGHT * MMADDER_WIDTH * MMADDER_CHANNELS];
static mmadder_outputs outputs;

/* @outputs */

static int fail(const char* file, const char* problem) {
  fprintf(stderr, "%s: %s\n", file, problem);
  return 1;
}

// Planes (channels, height, width) of bytes, in the network's order.
static int read_planes(void) {
  for (int c = 0; c < MMADDER_CHANNELS; ++c) {
    for (int p = 0; p < MMADDER_HEIGHT * MMADDER_WIDTH; ++p) {
      const int byte = getchar();
      if (byte == EOF) {
        return fail("standard input", "it ends before the last plane does");
      }
      image[p * MMADDER_CHANNELS + c] = (uint8_t)byte;
    }
  }
  if (getchar() != EOF) {
    return fail("standard input", "it goes on behind the last plane");
  }
  return 0;
}

#if MMADDER_CHANNELS == 3
// A number of a PPM's head, or -1.
static int read_number(FILE* file) {
  int byte = getc(file);
  while (byte == '#' || byte == ' ' || (byte >= '\t' && byte <= '\r')) {
    if (byte == '#') {  // a comment, up to the end of the line
      while (byte != '\n' && byte != EOF) {
        byte = getc(file);
      }
    }
    if (byte != EOF) {
      byte = getc(file);
    }
  }
  int number = -1;
  for (; byte >= '0' && byte <= '9' && number < 100000; byte = getc(file)) {
    number = (number < 0 ? 0 : number * 10) + byte - '0';
  }
  // One white space ends the number, and the head.
  return byte == ' ' || (byte >= '\t' && byte <= '\r') ? number : -1;
}

static int read_pixels(FILE* file, const char* path) {
  if (getc(file) != 'P' || getc(file) != '6') {
    return fail(path, "this is no binary PPM (P6)");
  }
  const int width = read_number(file), height = read_number(file);
  const int highest = read_number(file);
  if (width < 1 || height < 1 || highest < 1) {
    return fail(path, "the head of this PPM is damaged");
  }
  if (width != MMADDER_WIDTH || height != MMADDER_HEIGHT) {
    fprintf(stderr,
            "%s: this picture is %d wide and %d high, the program takes %d "
            "and %d: resize it\n",
            path, width, height, MMADDER_WIDTH, MMADDER_HEIGHT);
    return 1;
  }
  if (highest != 255) {
    return fail(path, "this PPM does not go from 0 to 255: convert it");
  }
  if (fread(image, 1, sizeof image, file) != sizeof image) {
    return fail(path, "this PPM ends before its last pixel");
  }
#if PICTURE_IS_BGR
  for (size_t i = 0; i < sizeof image; i += 3) {
    const uint8_t red = image[i];
    image[i] = image[i + 2];
    image[i + 2] = red;
  }
#endif
  return 0;
}
#else
static int read_pixels(FILE* file, const char* path) {
  (void)file;
  return fail(path,
              "a PPM has three channels, the network's picture has "
              "not: give - and its planes at the standard input");
}
#endif

static int read_picture(const char* path) {
  if (strcmp(path, "-") == 0) {
    return read_planes();
  }
  FILE* file = fopen(path, "rb");
  if (file == NULL) {
    return fail(path, strerror(errno));
  }
  const int failed = read_pixels(file, path);
  fclose(file);
  return failed;
}

static size_t output_size(const struct output* output) {
  return (size_t)output->channels * (size_t)output->height *
      (size_t)output->width;
}

// All outputs one behind the other, numbers with their lowest byte first.
static int write_outputs(const char* path) {
  FILE* file = fopen(path, "wb");
  if (file == NULL) {
    return fail(path, strerror(errno));
  }
  for (size_t i = 0; i < sizeof tensors / sizeof *tensors; ++i) {
    const size_t size = output_size(tensors + i);
    if (tensors[i].codes != NULL) {
      fwrite(tensors[i].codes, 1, size, file);
      continue;
    }
    for (size_t n = 0; n < size; ++n) {
      const uint32_t number = (uint32_t)tensors[i].numbers[n];
      for (int bits = 0; bits < 32; bits += 8) {
        putc((int)(number >> bits & 255), file);
      }
    }
  }
  const int failed = ferror(file);
  if (fclose(file) != 0 || failed) {
    // Empty rather than half, and not removed: it may be a device.
    file = fopen(path, "wb");
    if (file != NULL) {
      fclose(file);
    }
    return fail(path, "it could not be written to the end");
  }
  return 0;
}

static void print_summary(void) {
  printf(
      "memory: %lu bytes of maps, %lu of work; beside them the picture of "
      "%lu and the outputs of %lu\n",
      (unsigned long)MAP_BYTES, (unsigned long)WORK_BYTES,
      (unsigned long)sizeof image, (unsigned long)sizeof outputs);
  for (size_t i = 0; i < sizeof tensors / sizeof *tensors; ++i) {
    printf("%s: %s (%d, %d, %d)\n", tensors[i].name,
           tensors[i].codes != NULL ? "uint8" : "int32", tensors[i].channels,
           tensors[i].height, tensors[i].width);
  }
#ifdef LOGITS
  int best = 0;
  for (int i = 1; i < LOGITS_CLASSES; ++i) {
    if (LOGITS_SCALE[i] * LOGITS[i] > LOGITS_SCALE[best] * LOGITS[best]) {
      best = i;
    }
  }
  printf("best class: %d%s%s (%g)\n", best, *classes[best] ? ", " : "",
         classes[best], LOGITS_SCALE[best] * LOGITS[best]);
#endif
}

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    fprintf(
        stderr,
        "usage: %s PICTURE [OUTPUT]\n"
        "PICTURE: a binary PPM (P6), %d wide and %d high; or - for "
        "planes (%d, %d, %d) of bytes\n         at the standard input, "
        "%s\nOUTPUT: file for the bytes of all outputs\n",
        argv[0], MMADDER_WIDTH, MMADDER_HEIGHT, MMADDER_CHANNELS,
        MMADDER_HEIGHT, MMADDER_WIDTH, PICTURE_ORDER);
    return 2;
  }
  if (read_picture(argv[1]) != 0) {
    return 1;
  }
  mmadder_run(image, &outputs);
  if (argc == 3 && write_outputs(argv[2]) != 0) {
    return 1;
  }
  print_summary();
  return 0;
}
#endif
