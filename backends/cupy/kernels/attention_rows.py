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

from typing import Any

import cupy

from tfx.backends.cupy.kernels.attention_call import CALL, Given, reading, results_of
from tfx.backends.cupy.kernels.cuda import Program, blocks_for
from tfx.core.backend import Array

_MOST_THREADS = 512
_PART = 512  # positions that are worth a block of their own
_WHOLE = 1024  # positions that one block reads in the time of a launch
_MOST_PARTS = 64
_ENOUGH_BLOCKS = 256  # about two for each multiprocessor of a large device

ROWS = Program(
    CALL,
    r"""
const int LANES = WIDTH == 64 ? 16 : 32, COLUMNS = WIDTH / LANES, AT_ONCE = COLUMNS == 8 ? 2 : 4;
const int MOST_THREADS = 512, MOST_SHARES = MOST_THREADS / LANES;

// A share is its top, its total, and the sums of its columns, both relative to the top.
__device__ __forceinline__ Wide top_of(const Wide* shares, int count, Index size) {
  Wide top = LOWEST;
  for (int i = 0; i < count; i++) top = fmax(top, shares[i * size]);
  return top;
}
// What the number at a place behind their tops comes to over all shares.
__device__ __forceinline__ Wide joined(const Wide* shares, int count, Index size, Wide base,
                                      Index place) {
  Wide sum = 0;
  for (int i = 0; i < count; i++) sum += shares[i * size + place] * exp(shares[i * size] - base);
  return sum;
}

// One line of `out`: what the shares come to. Each thread finds the total for itself.
__device__ __forceinline__ void finish(const Wide* shares, int count, const Call& call,
                                       Index line, T* out, Wide* log_totals) {
  const Index size = call.value_width + 2;
  const Index query = line % call.queries, head = line / call.queries % call.heads;
  const Index text = line / call.queries / call.heads;
  const Wide top = top_of(shares, count, size), base = base_of(top);
  const Wide total = joined(shares, count, size, base, 1);
  T* target = out + text * call.out.text + head * call.out.head + query * call.out.row;
  for (int c = threadIdx.x; c < call.value_width; c += blockDim.x)
    target[c] = (T)(total == 0 ? (Wide)0 : joined(shares, count, size, base, c + 2) / total);
  if (threadIdx.x == 0) log_totals[line] = top + log(total);
}

// With one part to a line, the result; with more, what each part comes to, for `join_parts`.
extern "C" __global__ void __launch_bounds__(MOST_THREADS) attend_rows(
    const T* q, const T* k, const T* v, const Index* offset,
    const bool* visible, const T* factor, T* out, Wide* log_totals, Wide* parts,
    const Wide scale, const Index part_count, const Call call) {
  __shared__ Wide shares[MOST_SHARES * (WIDTH + 2)];
  const int lane = threadIdx.x % LANES, share = threadIdx.x / LANES;
  const int share_count = blockDim.x / LANES;
  const int width = (int)call.width, value_width = (int)call.value_width, size = value_width + 2;
  const Index position = offset ? *offset : 0;
  const Index lines = call.texts * call.heads * call.queries;

  for (Index number = blockIdx.x; number < lines * part_count; number += gridDim.x) {
    const Index line = number / part_count, part = number % part_count;
    const Index query = line % call.queries, head = line / call.queries % call.heads;
    const Index text = line / call.queries / call.heads;
    const Masks masks(call, visible, factor, text, head);
    const Index seen = seen_by(call, position, query);
    const Index each = (seen + part_count - 1) / part_count;
    const Index first = part * each, stop = first + each < seen ? first + each : seen;
    const T* own = q + text * call.q.text + head * call.q.head + query * call.q.row;
    const T* keys = k + text * call.k.text + head * call.k.head;
    const T* values = v + text * call.v.text + head * call.v.head;

    Wide asked[COLUMNS], sums[COLUMNS], top = LOWEST, total = 0;
    #pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      const int column = lane + LANES * i;
      asked[i] = column < width ? (Wide)own[column] * scale : (Wide)0;
      sums[i] = 0;
    }
    // All threads go around equally often: shuffles want whole warps.
    for (Index start = first; start < stop; start += share_count * AT_ONCE) {
      Wide key[AT_ONCE][COLUMNS], value[AT_ONCE][COLUMNS], score[AT_ONCE];
      #pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        const Index at = start + n * share_count + share;
        #pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
          const int column = lane + LANES * i;
          key[n][i] = at < stop && column < width ? (Wide)keys[at * call.k.row + column] : (Wide)0;
          value[n][i] =
              at < stop && column < value_width ? (Wide)values[at * call.v.row + column] : (Wide)0;
        }
      }
      Wide highest = top;
      #pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        const Index at = start + n * share_count + share;
        Wide dot = 0;
        #pragma unroll
        for (int i = 0; i < COLUMNS; i++) dot += asked[i] * key[n][i];
        dot = sum_of_lanes(dot, LANES / 2);
        score[n] = at < stop && masks.shows(query, at) ? dot : LOWEST;
        highest = fmax(highest, score[n]);
      }
      const Wide base = base_of(highest), shrink = exp(top - base);
      top = highest;
      total *= shrink;
      #pragma unroll
      for (int i = 0; i < COLUMNS; i++) sums[i] *= shrink;
      #pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        Wide weight = exp(score[n] - base);
        total += weight;
        if (weight != 0) weight *= masks.times(query, start + n * share_count + share);
        #pragma unroll
        for (int i = 0; i < COLUMNS; i++) sums[i] += weight * value[n][i];
      }
    }

    Wide* mine = shares + share * size;
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
      Wide* target = parts + number * size;
      const Wide top = top_of(shares, share_count, size);
      for (int c = threadIdx.x; c < size; c += blockDim.x)
        target[c] = c == 0 ? top : joined(shares, share_count, size, base_of(top), c);
    }
    __syncthreads();  // nobody reads them any more
  }
}

extern "C" __global__ void join_parts(const Wide* parts, T* out, Wide* log_totals,
                                      const Index part_count, const Call call) {
  const Index lines = call.texts * call.heads * call.queries;
  for (Index line = blockIdx.x; line < lines; line += gridDim.x)
    finish(parts + line * part_count * (call.value_width + 2), (int)part_count, call, line, out,
           log_totals);
}
""",
)


def row_names(dtype: Any, width: int) -> dict[str, Any]:
    """What the names of the source stand for."""
    return {"T": dtype, "WIDTH": width}


def attend(given: Given) -> tuple[Array, Array]:
    """The result (..., T, e), and the logarithms of the totals (heads of all texts, T)."""
    out, log_totals = results_of(given)
    read, call = reading(given, out)
    lines = call.heads * call.queries
    parts = _parts(lines, call.keys)
    shape = lines, parts, call.value_width + 2
    partial = None if parts == 1 else cupy.empty(shape, log_totals.dtype)
    results, rest = (out, log_totals), (parts, call.struct)
    names = row_names(out.dtype, call.width_class)
    threads = _threads(call.width_class, -(-call.keys // parts))
    grid = blocks_for(lines * parts, 1), threads
    args = *read, *results, partial, float(given.scale), *rest
    ROWS.launch("attend_rows", *grid, *args, **names)
    if partial is not None:
        grid = blocks_for(lines, 1), call.width_class
        ROWS.launch("join_parts", *grid, partial, *results, *rest, **names)
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
