"""Attention of a few queries, as a token that is decoded has it: read keys and values once, fast.

There is little to compute here, so what counts is how many reads are under way at a time. A block
has one query of one head. Groups of lanes, called shares, take keys in turn, each with a softmax of
its own; at the end the block joins its shares. How far a cache is filled, blocks read on the
device: of the positions behind, they read nothing.

Up to 1024 positions one block does a head's query: the memory of one multiprocessor reads them in
about the time of a second launch. Beyond, when heads alone would leave the device idle, several
blocks share what is seen, whatever its length turns out to be, and a second kernel joins them. The
first could do so in the block that comes last; but that wants a counter that outlives a call, and
what shares it must not run at the same time.

* 512 threads, and for each share 4 keys (2 where a lane has 8 columns) and their values are on the
  way at a time: 64 KB of reads in float32, which covers the latency of memory at more than one
  multiprocessor's part of the bandwidth. For more, registers would not suffice.
* A share is 16 lanes for up to 64 columns, a whole warp for more. Its lanes take every 16th or 32nd
  column, so a row is read in whole sectors and needs no alignment.
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
    sum_dtype,
)
from tfx.core.backend import Array

_MOST_THREADS = 512
_PART = 512  # positions that are worth a block of their own
_WHOLE = 1024  # positions that one block reads in the time of a launch
_MOST_PARTS = 64
_ENOUGH_BLOCKS = 256  # about two for each multiprocessor of a large device

_SOURCE = r"""
const int LANES = WIDTH == 64 ? 16 : 32, COLUMNS = WIDTH / LANES, AT_ONCE = COLUMNS == 8 ? 2 : 4;
const int MOST_THREADS = 512, MOST_SHARES = MOST_THREADS / LANES;

// A share is its top, its total, and the sums of its columns, both relative to the top.
__device__ __forceinline__ Sum top_of(const Sum* shares, int count, long long size) {
  Sum top = LOWEST;
  for (int i = 0; i < count; i++) top = fmax(top, shares[i * size]);
  return top;
}
// What the number at a place behind their tops comes to over all shares.
__device__ __forceinline__ Sum joined(const Sum* shares, int count, long long size, Sum base,
                                      long long place) {
  Sum sum = 0;
  for (int i = 0; i < count; i++) sum += shares[i * size + place] * exp(shares[i * size] - base);
  return sum;
}

// One line of `out`: what the shares come to. Each thread finds the total for itself.
__device__ __forceinline__ void finish(const Sum* shares, int count, const Call& call,
                                       long long line, Stored* out, Sum* log_totals) {
  const long long size = call.value_width + 2;
  const long long query = line % call.queries, head = line / call.queries % call.heads;
  const long long text = line / call.queries / call.heads;
  const Sum top = top_of(shares, count, size), base = base_of(top);
  const Sum total = joined(shares, count, size, base, 1);
  Stored* target = out + text * call.out.text + head * call.out.head + query * call.out.row;
  for (int c = threadIdx.x; c < call.value_width; c += blockDim.x)
    target[c] = (Stored)(total == 0 ? (Sum)0 : joined(shares, count, size, base, c + 2) / total);
  if (threadIdx.x == 0) log_totals[line] = top + log(total);
}

// With one part to a line, the result; with more, what each part comes to, for `join_parts`.
extern "C" __global__ void __launch_bounds__(MOST_THREADS) attend_rows(
    const Stored* q, const Stored* k, const Stored* v, const long long* offset,
    const bool* visible, const Stored* factor, Stored* out, Sum* log_totals, Sum* parts,
    const Sum scale, const long long part_count, const Call call) {
  __shared__ Sum shares[MOST_SHARES * (WIDTH + 2)];
  const int lane = threadIdx.x % LANES, share = threadIdx.x / LANES;
  const int share_count = blockDim.x / LANES;
  const int width = (int)call.width, value_width = (int)call.value_width, size = value_width + 2;
  const long long position = offset ? *offset : 0;
  const long long lines = call.texts * call.heads * call.queries;

  for (long long number = blockIdx.x; number < lines * part_count; number += gridDim.x) {
    const long long line = number / part_count, part = number % part_count;
    const long long query = line % call.queries, head = line / call.queries % call.heads;
    const long long text = line / call.queries / call.heads;
    const Masks masks(call, visible, factor, text, head);
    const long long seen = seen_by(call, position, query);
    const long long each = (seen + part_count - 1) / part_count;
    const long long first = part * each, stop = first + each < seen ? first + each : seen;
    const Stored* own = q + text * call.q.text + head * call.q.head + query * call.q.row;
    const Stored* keys = k + text * call.k.text + head * call.k.head;
    const Stored* values = v + text * call.v.text + head * call.v.head;

    Sum asked[COLUMNS], sums[COLUMNS], top = LOWEST, total = 0;
    #pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      const int column = lane + LANES * i;
      asked[i] = column < width ? (Sum)own[column] * scale : (Sum)0;
      sums[i] = 0;
    }
    // All threads go around equally often: shuffles want whole warps.
    for (long long start = first; start < stop; start += share_count * AT_ONCE) {
      Sum key[AT_ONCE][COLUMNS], value[AT_ONCE][COLUMNS], score[AT_ONCE];
      #pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        const long long at = start + n * share_count + share;
        #pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
          const int column = lane + LANES * i;
          key[n][i] = at < stop && column < width ? (Sum)keys[at * call.k.row + column] : (Sum)0;
          value[n][i] =
              at < stop && column < value_width ? (Sum)values[at * call.v.row + column] : (Sum)0;
        }
      }
      Sum highest = top;
      #pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        const long long at = start + n * share_count + share;
        Sum dot = 0;
        #pragma unroll
        for (int i = 0; i < COLUMNS; i++) dot += asked[i] * key[n][i];
        dot = sum_of_lanes<LANES>(dot);
        score[n] = at < stop && masks.shows(query, at) ? dot : LOWEST;
        highest = fmax(highest, score[n]);
      }
      const Sum base = base_of(highest), shrink = exp(top - base);
      top = highest;
      total *= shrink;
      #pragma unroll
      for (int i = 0; i < COLUMNS; i++) sums[i] *= shrink;
      #pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        Sum weight = exp(score[n] - base);
        total += weight;
        if (weight != 0) weight *= masks.times(query, start + n * share_count + share);
        #pragma unroll
        for (int i = 0; i < COLUMNS; i++) sums[i] += weight * value[n][i];
      }
    }

    Sum* mine = shares + share * size;
    if (lane == 0) mine[0] = top, mine[1] = total;
    #pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      const int column = lane + LANES * i;
      if (column < value_width) mine[column + 2] = sums[i];
    }
    __syncthreads();  // all shares are there
    if (part_count == 1) {
      finish(shares, share_count, call, line, out, log_totals);
    } else {
      Sum* target = parts + number * size;
      const Sum top = top_of(shares, share_count, size);
      for (int c = threadIdx.x; c < size; c += blockDim.x)
        target[c] = c == 0 ? top : joined(shares, share_count, size, base_of(top), c);
    }
    __syncthreads();  // nobody reads them any more
  }
}

extern "C" __global__ void join_parts(const Sum* parts, Stored* out, Sum* log_totals,
                                      const long long part_count, const Call call) {
  const long long lines = call.texts * call.heads * call.queries;
  for (long long line = blockIdx.x; line < lines; line += gridDim.x)
    finish(parts + line * part_count * (call.value_width + 2), (int)part_count, call, line, out,
           log_totals);
}
"""


def attend(
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    causal: bool,
    heads: int | None,
) -> tuple[Array, Array]:
    """The result (..., T, e), and the logarithms of the totals (heads of all texts, T)."""
    out = cupy.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    masks = over_scores(visible, q, k, heads), over_scores(factor, q, k, heads)
    q, k, v = (readable(x, heads) for x in (q, k, v))
    call = described(q, k, v, out, *masks, causal, heads)
    log_totals = cupy.empty((call.heads, call.queries), sum_dtype(q))
    results = out, log_totals
    dtype, width, lines = q.dtype.char, call.width_class, call.heads * call.queries
    parts = _parts(lines, call.keys)
    shape = lines, parts, call.value_width + 2
    partial = None if parts == 1 else cupy.empty(shape, log_totals.dtype)
    threads = _threads(width, -(-call.keys // parts))
    args = q, k, v, offset, *masks, *results, partial, sum_dtype(q)(scale), parts, call.struct
    _kernel("attend_rows", dtype, width)(blocks(lines * parts), (threads,), args)
    if partial is not None:
        join_parts = _kernel("join_parts", dtype, width)
        join_parts(blocks(lines), (width,), (partial, *results, parts, call.struct))
    return out, log_totals


def _parts(lines: int, keys: int) -> int:
    """How many blocks share a query of a head."""
    if keys <= _WHOLE:
        return 1
    return max(1, min(keys // _PART, _ENOUGH_BLOCKS // lines, _MOST_PARTS))


def _threads(width: int, keys: int) -> int:
    """No more warps than there may be keys for."""
    at_a_time = 8 if width == 64 else 4 if width == 128 else 2  # by a warp
    return int(min(_MOST_THREADS, 32 * -(-keys // at_a_time)))


def _kernel(name: str, dtype: str, width: int) -> Any:
    return compiled(_SOURCE, name, dtype, width)


def kernels(dtype: str, width: int) -> Iterator[Any]:
    """All there are for a dtype and a width class."""
    yield _kernel("attend_rows", dtype, width)
    yield _kernel("join_parts", dtype, width)
