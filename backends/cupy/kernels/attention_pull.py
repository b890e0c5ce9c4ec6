"""The gradients of attention, in the tiles of the forward pass.

The weights are computed anew from the logarithm of each row's total. There are two kernels, one
with queries for rows and one with keys: so each number is written by one thread, which adds in one
order.
"""

from __future__ import annotations

from typing import Any

import cupy

from tfx.backends.cupy.kernels.attention_call import CALL, Given, readable, reading, steps_of
from tfx.backends.cupy.kernels.attention_tiles import BANDS, THREADS, TILES, tile_names
from tfx.backends.cupy.kernels.cuda import Program, blocks_for
from tfx.core.backend import Array

PULL = Program(
    CALL,
    TILES,
    r"""
struct Slopes { Steps g, q, k, v; };

// The gradient by q, and `means`: the sum of a row's weights times their gradients, which is that
// of its outputs times theirs.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) pull_queries(
    const T* q, const T* k, const T* v, const Index* offset,
    const bool* visible, const T* factor, const T* out, const Wide* log_totals,
    const T* g, T* g_q, Wide* means, const Wide scale, const Call call,
    const Slopes slopes) {
  const int ROWS = QUERIES_HEIGHT * BANDS;
  __shared__ __align__(16) Wide own[ROWS * PITCH];
  __shared__ __align__(16) Wide others[OTHERS * PITCH];
  __shared__ __align__(16) Wide weights[ROWS * WEIGHTS_PITCH];
  const Index position = offset ? *offset : 0;
  const Index heads = call.texts * call.heads, tiles = (call.queries + ROWS - 1) / ROWS;

  for (Index number = blockIdx.x; number < tiles * heads; number += gridDim.x) {
    const Work work(call, number, tiles - 1 - number / heads, ROWS);
    const Masks masks(call, visible, factor, work.text, work.head);
    const Index rows = least(ROWS, call.queries - work.first);
    const Index seen = seen_by(call, position, work.first + rows - 1);
    const Index line = (work.text * call.heads + work.head) * call.queries + work.first;
    const Rows queries(q, call.q, work.text, work.head, work.first, rows);
    const Rows slope(g, slopes.g, work.text, work.head, work.first, rows);
    const Rows result(out, call.out, work.text, work.head, work.first, rows);
    Sums<QUERIES_HEIGHT> sums;
    Wide mean[QUERIES_HEIGHT];
    sums.clear();
    #pragma unroll
    for (int r = 0; r < QUERIES_HEIGHT; r++) {
      const int row = band() + BANDS * r;
      mean[r] = 0;
      if (row < rows)
        for (int c = lane(); c < call.value_width; c += LANES)
          mean[r] += (Wide)slope.at[row * slope.step + c] * (Wide)result.at[row * result.step + c];
      mean[r] = sum_of_lanes(mean[r], LANES / 2);
      if (row < rows && lane() == 0) means[line + row] = mean[r];
    }

    for (Index start = 0; start < seen; start += OTHERS) {
      const Index count = least(OTHERS, seen - start);
      const Rows keys(k, call.k, work.text, work.head, start, count);
      const Rows values(v, call.v, work.text, work.head, start, count);
      Wide dots[QUERIES_HEIGHT][EACH], along[QUERIES_HEIGHT][EACH];
      dot_products(dots, own, others, queries, keys, (int)call.width);
      dot_products(along, own, others, slope, values, (int)call.value_width);
      #pragma unroll
      for (int r = 0; r < QUERIES_HEIGHT; r++) {
        const int row = band() + BANDS * r;
        const Index query = work.first + row;
        const Index own_seen = row < rows ? seen_by(call, position, query) : 0;
        #pragma unroll
        for (int e = 0; e < EACH; e++) {
          const int other = lane() + LANES * e;
          const Index key = start + other;
          Wide by_score = 0;
          if (key < own_seen && masks.shows(query, key)) {
            const Wide weight = exp(dots[r][e] * scale - log_totals[line + row]);
            by_score = weight * (along[r][e] * masks.times(query, key) - mean[r]) * scale;
          }
          weights[row * WEIGHTS_PITCH + other] = by_score;
        }
      }
      sums.add(weights, others, keys, (int)call.width);
    }
    T* target = g_q + work.text * slopes.q.text + work.head * slopes.q.head
                     + work.first * slopes.q.row;
    sums.store(target, slopes.q.row, rows, (int)call.width);
  }
}

// The gradients by k and v: own rows are keys, the other side queries.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) pull_keys(
    const T* q, const T* k, const T* v, const Index* offset,
    const bool* visible, const T* factor, const Wide* log_totals, const T* g,
    const Wide* means, T* g_k, T* g_v, const Wide scale, const Call call,
    const Slopes slopes) {
  const int ROWS = KEYS_HEIGHT * BANDS;
  __shared__ __align__(16) Wide own[ROWS * PITCH];
  __shared__ __align__(16) Wide others[OTHERS * PITCH];
  __shared__ __align__(16) Wide weights[ROWS * WEIGHTS_PITCH];
  const Index position = offset ? *offset : 0;
  const Index heads = call.texts * call.heads, tiles = (call.keys + ROWS - 1) / ROWS;

  for (Index number = blockIdx.x; number < tiles * heads; number += gridDim.x) {
    const Work work(call, number, number / heads, ROWS);  // early keys are seen by most
    const Masks masks(call, visible, factor, work.text, work.head);
    const Index rows = least(ROWS, call.keys - work.first);
    const Index lines = (work.text * call.heads + work.head) * call.queries;
    const Rows keys(k, call.k, work.text, work.head, work.first, rows);
    const Rows values(v, call.v, work.text, work.head, work.first, rows);
    Sums<KEYS_HEIGHT> by_keys, by_values;
    by_keys.clear();
    by_values.clear();

    // Before this query, none sees even the first of the keys.
    const Index from = call.causal && work.first > position ? work.first - position : 0;
    for (Index start = from; start < call.queries; start += OTHERS) {
      const Index count = least(OTHERS, call.queries - start);
      const Rows queries(q, call.q, work.text, work.head, start, count);
      const Rows slope(g, slopes.g, work.text, work.head, start, count);
      Wide dots[KEYS_HEIGHT][EACH], along[KEYS_HEIGHT][EACH];
      dot_products(dots, own, others, keys, queries, (int)call.width);
      dot_products(along, own, others, values, slope, (int)call.value_width);
      #pragma unroll
      for (int e = 0; e < EACH; e++) {
        const int other = lane() + LANES * e;
        const Index query = start + other;
        const Index seen = other < count ? seen_by(call, position, query) : 0;
        const Wide log_total = other < count ? log_totals[lines + query] : (Wide)0;
        const Wide mean = other < count ? means[lines + query] : (Wide)0;
        #pragma unroll
        for (int r = 0; r < KEYS_HEIGHT; r++) {
          const int row = band() + BANDS * r;
          const Index key = work.first + row;
          Wide weight = 0, by_score = 0;
          if (key < seen && masks.shows(query, key)) {
            const Wide times = masks.times(query, key);
            weight = exp(dots[r][e] * scale - log_total);
            by_score = weight * (along[r][e] * times - mean) * scale;
            weight *= times;
          }
          weights[row * WEIGHTS_PITCH + other] = weight;
          dots[r][e] = by_score;
        }
      }
      by_values.add(weights, others, slope, (int)call.value_width);
      #pragma unroll
      for (int r = 0; r < KEYS_HEIGHT; r++)
        #pragma unroll
        for (int e = 0; e < EACH; e++)
          weights[(band() + BANDS * r) * WEIGHTS_PITCH + lane() + LANES * e] = dots[r][e];
      by_keys.add(weights, others, queries, (int)call.width);
    }
    T* of_keys = g_k + work.text * slopes.k.text + work.head * slopes.k.head
                      + work.first * slopes.k.row;
    T* of_values = g_v + work.text * slopes.v.text + work.head * slopes.v.head
                        + work.first * slopes.v.row;
    by_keys.store(of_keys, slopes.k.row, rows, (int)call.width);
    by_values.store(of_values, slopes.v.row, rows, (int)call.value_width);
  }
}
""",
)


def pull_names(dtype: Any, width: int) -> dict[str, Any]:
    """What the names of the source stand for. For each of the KEYS_HEIGHT rows of keys that it has,
    a thread keeps two rows of sums."""
    height = max(2, (256 if dtype.itemsize == 8 else 512) // width)
    return {**tile_names(dtype, width), "KEYS_HEIGHT": height}


def pull(g: Array, out: Array, log_totals: Array, given: Given) -> tuple[Array, Array, Array]:
    """The gradients by q, k and v."""
    g_q, g_k, g_v = (cupy.empty(x.shape, x.dtype) for x in given[:3])
    g, out = (readable(x, given.heads) for x in (g, out))
    read, call = reading(given, out)
    steps = steps_of((g, g_q, g_k, g_v), given.heads)
    rest = float(given.scale), call.struct, steps
    means = cupy.empty_like(log_totals)
    names = pull_names(out.dtype, call.width_class)
    tiles = -(-call.queries // (BANDS * names["QUERIES_HEIGHT"]))
    args = *read, out, log_totals, g, g_q, means, *rest
    PULL.launch("pull_queries", blocks_for(call.heads * tiles, 1), THREADS, *args, **names)
    tiles = -(-call.keys // (BANDS * names["KEYS_HEIGHT"]))
    args = *read, log_totals, g, means, g_k, g_v, *rest
    PULL.launch("pull_keys", blocks_for(call.heads * tiles, 1), THREADS, *args, **names)
    return g_q, g_k, g_v
