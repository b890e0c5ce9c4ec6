"""The gradients of attention, in the tiles of the forward pass.

The weights are computed anew from the logarithm of each row's total. There are two kernels, one
with queries for rows and one with keys: so each number is written by one thread, which adds in one
order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cupy

from tfx.backends.cupy.kernels.attention_call import (
    blocks,
    compiled,
    described,
    over_scores,
    readable,
    steps_of,
    sum_dtype,
)
from tfx.backends.cupy.kernels.attention_tiles import BANDS, THREADS, TILES, query_height
from tfx.core.backend import Array

_SOURCE = r"""
struct Slopes { Steps g, q, k, v; };

// The gradient by q, and `means`: the sum of a row's weights times their gradients, which is that
// of its outputs times theirs.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) pull_queries(
    const Stored* q, const Stored* k, const Stored* v, const long long* offset,
    const bool* visible, const Stored* factor, const Stored* out, const Sum* log_totals,
    const Stored* g, Stored* g_q, Sum* means, const Sum scale, const Call call,
    const Slopes slopes) {
  const int ROWS = QUERIES_HEIGHT * BANDS;
  __shared__ __align__(16) Sum own[ROWS * PITCH];
  __shared__ __align__(16) Sum others[OTHERS * PITCH];
  __shared__ __align__(16) Sum weights[ROWS * WEIGHTS_PITCH];
  const long long position = offset ? *offset : 0;
  const long long heads = call.texts * call.heads, tiles = (call.queries + ROWS - 1) / ROWS;

  for (long long number = blockIdx.x; number < tiles * heads; number += gridDim.x) {
    const Work work(call, number, tiles - 1 - number / heads, ROWS);
    const Masks masks(call, visible, factor, work.text, work.head);
    const long long rows = least(ROWS, call.queries - work.first);
    const long long seen = seen_by(call, position, work.first + rows - 1);
    const long long line = (work.text * call.heads + work.head) * call.queries + work.first;
    const Rows queries(q, call.q, work.text, work.head, work.first, rows);
    const Rows slope(g, slopes.g, work.text, work.head, work.first, rows);
    const Rows result(out, call.out, work.text, work.head, work.first, rows);
    Sums<QUERIES_HEIGHT> sums;
    Sum mean[QUERIES_HEIGHT];
    sums.clear();
    #pragma unroll
    for (int r = 0; r < QUERIES_HEIGHT; r++) {
      const int row = band() + BANDS * r;
      mean[r] = 0;
      if (row < rows)
        for (int c = lane(); c < call.value_width; c += LANES)
          mean[r] += (Sum)slope.at[row * slope.step + c] * (Sum)result.at[row * result.step + c];
      mean[r] = sum_of_lanes<LANES>(mean[r]);
      if (row < rows && lane() == 0) means[line + row] = mean[r];
    }

    for (long long start = 0; start < seen; start += OTHERS) {
      const long long count = least(OTHERS, seen - start);
      const Rows keys(k, call.k, work.text, work.head, start, count);
      const Rows values(v, call.v, work.text, work.head, start, count);
      Sum dots[QUERIES_HEIGHT][EACH], along[QUERIES_HEIGHT][EACH];
      dot_products(dots, own, others, queries, keys, (int)call.width);
      dot_products(along, own, others, slope, values, (int)call.value_width);
      #pragma unroll
      for (int r = 0; r < QUERIES_HEIGHT; r++) {
        const int row = band() + BANDS * r;
        const long long query = work.first + row;
        const long long own_seen = row < rows ? seen_by(call, position, query) : 0;
        #pragma unroll
        for (int e = 0; e < EACH; e++) {
          const int other = lane() + LANES * e;
          const long long key = start + other;
          Sum by_score = 0;
          if (key < own_seen && masks.shows(query, key)) {
            const Sum weight = exp(dots[r][e] * scale - log_totals[line + row]);
            by_score = weight * (along[r][e] * masks.times(query, key) - mean[r]) * scale;
          }
          weights[row * WEIGHTS_PITCH + other] = by_score;
        }
      }
      sums.add(weights, others, keys, (int)call.width);
    }
    Stored* target = g_q + work.text * slopes.q.text + work.head * slopes.q.head
                     + work.first * slopes.q.row;
    sums.store(target, slopes.q.row, rows, (int)call.width);
  }
}

// The gradients by k and v: own rows are keys, the other side queries.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) pull_keys(
    const Stored* q, const Stored* k, const Stored* v, const long long* offset,
    const bool* visible, const Stored* factor, const Sum* log_totals, const Stored* g,
    const Sum* means, Stored* g_k, Stored* g_v, const Sum scale, const Call call,
    const Slopes slopes) {
  const int ROWS = KEYS_HEIGHT * BANDS;
  __shared__ __align__(16) Sum own[ROWS * PITCH];
  __shared__ __align__(16) Sum others[OTHERS * PITCH];
  __shared__ __align__(16) Sum weights[ROWS * WEIGHTS_PITCH];
  const long long position = offset ? *offset : 0;
  const long long heads = call.texts * call.heads, tiles = (call.keys + ROWS - 1) / ROWS;

  for (long long number = blockIdx.x; number < tiles * heads; number += gridDim.x) {
    const Work work(call, number, number / heads, ROWS);  // early keys are seen by most
    const Masks masks(call, visible, factor, work.text, work.head);
    const long long rows = least(ROWS, call.keys - work.first);
    const long long lines = (work.text * call.heads + work.head) * call.queries;
    const Rows keys(k, call.k, work.text, work.head, work.first, rows);
    const Rows values(v, call.v, work.text, work.head, work.first, rows);
    Sums<KEYS_HEIGHT> by_keys, by_values;
    by_keys.clear();
    by_values.clear();

    // Before this query, none sees even the first of the keys.
    const long long from = call.causal && work.first > position ? work.first - position : 0;
    for (long long start = from; start < call.queries; start += OTHERS) {
      const long long count = least(OTHERS, call.queries - start);
      const Rows queries(q, call.q, work.text, work.head, start, count);
      const Rows slope(g, slopes.g, work.text, work.head, start, count);
      Sum dots[KEYS_HEIGHT][EACH], along[KEYS_HEIGHT][EACH];
      dot_products(dots, own, others, keys, queries, (int)call.width);
      dot_products(along, own, others, values, slope, (int)call.value_width);
      #pragma unroll
      for (int e = 0; e < EACH; e++) {
        const int other = lane() + LANES * e;
        const long long query = start + other;
        const long long seen = other < count ? seen_by(call, position, query) : 0;
        const Sum log_total = other < count ? log_totals[lines + query] : (Sum)0;
        const Sum mean = other < count ? means[lines + query] : (Sum)0;
        #pragma unroll
        for (int r = 0; r < KEYS_HEIGHT; r++) {
          const int row = band() + BANDS * r;
          const long long key = work.first + row;
          Sum weight = 0, by_score = 0;
          if (key < seen && masks.shows(query, key)) {
            const Sum times = masks.times(query, key);
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
    Stored* of_keys = g_k + work.text * slopes.k.text + work.head * slopes.k.head
                      + work.first * slopes.k.row;
    Stored* of_values = g_v + work.text * slopes.v.text + work.head * slopes.v.head
                        + work.first * slopes.v.row;
    by_keys.store(of_keys, slopes.k.row, rows, (int)call.width);
    by_values.store(of_values, slopes.v.row, rows, (int)call.value_width);
  }
}
"""


def _key_height(dtype: str, width: int) -> int:
    """How many rows of keys a thread has, for each of which it keeps two rows of sums."""
    if dtype == "d":
        return 4 if width == 64 else 2
    return {64: 8, 128: 4, 256: 2}[width]


def kernels(dtype: str, width: int) -> Iterator[Any]:
    """All there are for a dtype and a width class."""
    yield _kernel("pull_queries", dtype, width)
    yield _kernel("pull_keys", dtype, width)


def _kernel(name: str, dtype: str, width: int) -> Any:
    heights = {
        "QUERIES_HEIGHT": query_height(dtype, width),
        "KEYS_HEIGHT": _key_height(dtype, width),
    }
    return compiled(TILES + _SOURCE, name, dtype, width, **heights)


def pull(
    g: Array,
    out: Array,
    log_totals: Array,
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    causal: bool,
    heads: int | None,
) -> tuple[Array, Array, Array]:
    """The gradients by q, k and v."""
    g_q, g_k, g_v = (cupy.empty(x.shape, x.dtype) for x in (q, k, v))
    masks = over_scores(visible, q, k, heads), over_scores(factor, q, k, heads)
    q, k, v, g, out = (readable(x, heads) for x in (q, k, v, g, out))
    call = described(q, k, v, out, *masks, causal, heads)
    rest = sum_dtype(q)(scale), call.struct, steps_of((g, g_q, g_k, g_v), heads)
    means = cupy.empty_like(log_totals)
    dtype, width = q.dtype.char, call.width_class
    tiles = -(-call.queries // (BANDS * query_height(dtype, width)))
    args = q, k, v, offset, *masks, out, log_totals, g, g_q, means, *rest
    by_query = _kernel("pull_queries", dtype, width)
    by_query(blocks(call.heads * tiles), (THREADS,), args)
    tiles = -(-call.keys // (BANDS * _key_height(dtype, width)))
    args = q, k, v, offset, *masks, log_totals, g, means, g_k, g_v, *rest
    by_key = _kernel("pull_keys", dtype, width)
    by_key(blocks(call.heads * tiles), (THREADS,), args)
    return g_q, g_k, g_v
