"""Attention in tiles: no more scores at a time than fit into shared memory.

After Dao et al. 2022 (arXiv:2205.14135): a block keeps some queries and goes over the keys a tile
at a time, with the softmax's top and total mended as it goes.

Why tiles are as large as they are:

* 48 KB of shared memory is what every device gives without asking. With 64 columns at a time,
  two operands and the weights between them take 34 KB in float32 (64 rows and 32 of the other
  side), 43 KB in float64 (32 and 32); wider heads go through the same room chunk by chunk.
* 128 threads stand as 8 bands of 16 lanes. A thread has every eighth row and every sixteenth of
  the other side: for 8 rows, 4 columns of a row are 10 reads of 16 bytes for 64 multiplications,
  which is about what the arithmetic units take in the time of the reads.
* A thread holds its rows' sums in registers, WIDTH / 16 of each row. Rows become fewer where
  columns are many, or numbers wide. For 64 columns the compiler is asked to stay within 168
  registers, so that three blocks share a multiprocessor, and else within 255. What does not fit is
  little: by its report for sm_80 and sm_90, none in most variants, and at most 72 bytes a thread.
* A row of a tile is 4 numbers longer than what is in it: neighbouring rows then begin in other
  banks of shared memory, and 16-byte reads stay aligned.
"""

from __future__ import annotations

from typing import Any

from tfx.backends.cupy.kernels.attention_call import CALL, Given, reading, results_of
from tfx.backends.cupy.kernels.cuda import Program, blocks_for
from tfx.core.backend import Array

THREADS = 128
BANDS = 8

TILES = r"""
const int LANES = 16, BANDS = 8, THREADS = LANES * BANDS;
const int BLOCKS = WIDTH == 64 ? 3 : 2;                // that a multiprocessor has at least
const int OTHERS = 32, EACH = OTHERS / LANES;          // rows of the other side: in all, a thread's
const int CHUNK = 64, CHUNKS = WIDTH / CHUNK, QUAD = CHUNK / LANES;
const int PITCH = CHUNK + 4, WEIGHTS_PITCH = OTHERS + 4;

// The maximum over the lanes of a band, for each of them.
__device__ __forceinline__ Wide highest_of_lanes(Wide x) {
  for (int far = LANES / 2; far > 0; far /= 2) x = fmax(x, __shfl_xor_sync(ALL_LANES, x, far));
  return x;
}

struct __align__(16) Quad { Wide at[QUAD]; };
__device__ __forceinline__ const Quad& quad(const Wide* tile, int offset) {
  return *reinterpret_cast<const Quad*>(tile + offset);
}
__device__ __forceinline__ int lane() { return threadIdx.x % LANES; }
__device__ __forceinline__ int band() { return threadIdx.x / LANES; }

// Some rows of one head in memory; there may be fewer than in a tile.
struct Rows {
  const T* at;
  Index step;
  int count;
  __device__ Rows(const T* x, const Steps& steps, Index text, Index head,
                  Index first, Index count_)
      : at(x + text * steps.text + head * steps.head + first * steps.row),
        step(steps.row), count((int)count_) {}
};

// A chunk of columns to shared memory, zeros where there is nothing: neighbours read neighbours.
template <int COUNT>
__device__ __forceinline__ void load(Wide* tile, const Rows& rows, int first, int width) {
  #pragma unroll 8
  for (int i = threadIdx.x; i < COUNT * CHUNK; i += THREADS) {
    const int row = i / CHUNK, column = i % CHUNK;
    const bool there = row < rows.count && first + column < width;
    tile[row * PITCH + column] = there ? (Wide)rows.at[row * rows.step + first + column] : (Wide)0;
  }
}

// dots[r][e] = the product of own row (band + BANDS * r) and other row (lane + LANES * e).
// Begins where nobody reads the tiles any more, and ends there.
template <int HEIGHT>
__device__ __forceinline__ void dot_products(
    Wide (&dots)[HEIGHT][EACH], Wide* own, Wide* others, const Rows& x, const Rows& y, int width,
    bool own_is_there = false) {
  #pragma unroll
  for (int r = 0; r < HEIGHT; r++)
    #pragma unroll
    for (int e = 0; e < EACH; e++) dots[r][e] = 0;
  for (int first = 0; first < width; first += CHUNK) {
    if (!own_is_there) load<HEIGHT * BANDS>(own, x, first, width);
    load<OTHERS>(others, y, first, width);
    __syncthreads();  // both chunks are there
    const int columns = width - first < CHUNK ? width - first : CHUNK;
    #pragma unroll 2
    for (int c = 0; c < columns; c += QUAD) {  // behind the last one, zeros
      Quad a[HEIGHT], b[EACH];
      #pragma unroll
      for (int r = 0; r < HEIGHT; r++) a[r] = quad(own, (band() + BANDS * r) * PITCH + c);
      #pragma unroll
      for (int e = 0; e < EACH; e++) b[e] = quad(others, (lane() + LANES * e) * PITCH + c);
      #pragma unroll
      for (int r = 0; r < HEIGHT; r++)
        #pragma unroll
        for (int e = 0; e < EACH; e++)
          #pragma unroll
          for (int i = 0; i < QUAD; i++) dots[r][e] += a[r].at[i] * b[e].at[i];
    }
    __syncthreads();  // nobody reads them any more
  }
}

// A thread's columns of a chunk are the QUAD from QUAD * lane on.
template <int HEIGHT> struct Sums {
  Wide at[HEIGHT][CHUNKS][QUAD];

  __device__ __forceinline__ void clear() {
    #pragma unroll
    for (int r = 0; r < HEIGHT; r++)
      #pragma unroll
      for (int n = 0; n < CHUNKS; n++)
        #pragma unroll
        for (int i = 0; i < QUAD; i++) at[r][n][i] = 0;
  }
  __device__ __forceinline__ void scale(int r, Wide by) {
    #pragma unroll
    for (int n = 0; n < CHUNKS; n++)
      #pragma unroll
      for (int i = 0; i < QUAD; i++) at[r][n][i] *= by;
  }

  // Adds the product of `weights` (own rows, others), which threads have just written, and y.
  // Nobody may read `others` at the beginning, and nobody reads either tile at the end.
  __device__ __forceinline__ void add(const Wide* weights, Wide* others, const Rows& y, int width) {
    #pragma unroll
    for (int n = 0; n < CHUNKS; n++) {
      if (n * CHUNK < width) {  // so for all threads
        load<OTHERS>(others, y, n * CHUNK, width);
        __syncthreads();  // the chunk is there, and the weights are
        #pragma unroll 2
        for (int o = 0; o < OTHERS; o += QUAD) {
          Quad w[HEIGHT];
          #pragma unroll
          for (int r = 0; r < HEIGHT; r++)
            w[r] = quad(weights, (band() + BANDS * r) * WEIGHTS_PITCH + o);
          #pragma unroll
          for (int j = 0; j < QUAD; j++) {
            const Quad b = quad(others, (o + j) * PITCH + QUAD * lane());
            #pragma unroll
            for (int r = 0; r < HEIGHT; r++)
              #pragma unroll
              for (int i = 0; i < QUAD; i++) at[r][n][i] += w[r].at[j] * b.at[i];
          }
        }
        __syncthreads();  // nobody reads them any more
      }
    }
  }

  __device__ __forceinline__ void store(
      T* rows, Index step, Index count, int width) const {
    #pragma unroll
    for (int r = 0; r < HEIGHT; r++) {
      const int row = band() + BANDS * r;
      if (row >= count) continue;
      #pragma unroll
      for (int n = 0; n < CHUNKS; n++)
        #pragma unroll
        for (int i = 0; i < QUAD; i++) {
          const int column = n * CHUNK + QUAD * lane() + i;
          if (column < width) rows[row * step + column] = (T)at[r][n][i];
        }
    }
  }
};

// A piece of work is a tile of rows of one head of one text.
struct Work {
  Index text, head, first;
  __device__ Work(const Call& call, Index number, Index tile, int rows)
      : text(number % (call.texts * call.heads) / call.heads), head(number % call.heads),
        first(tile * rows) {}
};
__device__ __forceinline__ Index least(Index a, Index b) { return a < b ? a : b; }
"""

ATTEND = Program(
    CALL,
    TILES,
    r"""
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attend(
    const T* q, const T* k, const T* v, const Index* offset,
    const bool* visible, const T* factor, T* out, Wide* log_totals, const Wide scale,
    const Call call) {
  const int ROWS = QUERIES_HEIGHT * BANDS;
  __shared__ __align__(16) Wide own[ROWS * PITCH];
  __shared__ __align__(16) Wide others[OTHERS * PITCH];
  __shared__ __align__(16) Wide weights[ROWS * WEIGHTS_PITCH];
  const Index position = offset ? *offset : 0;
  const Index heads = call.texts * call.heads, tiles = (call.queries + ROWS - 1) / ROWS;

  for (Index number = blockIdx.x; number < tiles * heads; number += gridDim.x) {
    // Late queries see most: they come first, so that no block is left alone with one at the end.
    const Work work(call, number, tiles - 1 - number / heads, ROWS);
    const Masks masks(call, visible, factor, work.text, work.head);
    const Index rows = least(ROWS, call.queries - work.first);
    const Index seen = seen_by(call, position, work.first + rows - 1);
    const Rows queries(q, call.q, work.text, work.head, work.first, rows);
    Sums<QUERIES_HEIGHT> sums;
    Wide top[QUERIES_HEIGHT], total[QUERIES_HEIGHT];  // the total is that of this lane
    sums.clear();
    #pragma unroll
    for (int r = 0; r < QUERIES_HEIGHT; r++) top[r] = LOWEST, total[r] = 0;

    for (Index start = 0; start < seen; start += OTHERS) {
      const Index count = least(OTHERS, seen - start);
      const Rows keys(k, call.k, work.text, work.head, start, count);
      Wide dots[QUERIES_HEIGHT][EACH];
      // Queries that are one chunk stay where they are.
      dot_products(dots, own, others, queries, keys, (int)call.width, CHUNKS == 1 && start > 0);
      #pragma unroll
      for (int r = 0; r < QUERIES_HEIGHT; r++) {
        const int row = band() + BANDS * r;
        const Index query = work.first + row;
        const Index own_seen = row < rows ? seen_by(call, position, query) : 0;
        Wide highest = top[r];
        #pragma unroll
        for (int e = 0; e < EACH; e++) {
          const Index key = start + lane() + LANES * e;
          const bool sees = key < own_seen && masks.shows(query, key);
          dots[r][e] = sees ? dots[r][e] * scale : LOWEST;
          highest = fmax(highest, dots[r][e]);
        }
        highest = highest_of_lanes(highest);
        const Wide base = base_of(highest), shrink = exp(top[r] - base);
        top[r] = highest;
        total[r] *= shrink;
        sums.scale(r, shrink);
        #pragma unroll
        for (int e = 0; e < EACH; e++) {
          const int other = lane() + LANES * e;
          Wide weight = exp(dots[r][e] - base);
          total[r] += weight;
          if (weight != 0) weight *= masks.times(query, start + other);
          weights[row * WEIGHTS_PITCH + other] = weight;
        }
      }
      const Rows values(v, call.v, work.text, work.head, start, count);
      sums.add(weights, others, values, (int)call.value_width);
    }

    #pragma unroll
    for (int r = 0; r < QUERIES_HEIGHT; r++) {
      const int row = band() + BANDS * r;
      total[r] = sum_of_lanes(total[r], LANES / 2);
      sums.scale(r, total[r] == 0 ? (Wide)0 : 1 / total[r]);
      if (row < rows && lane() == 0)
        log_totals[(work.text * call.heads + work.head) * call.queries + work.first + row] =
            top[r] + log(total[r]);
    }
    T* target = out + work.text * call.out.text + work.head * call.out.head
                     + work.first * call.out.row;
    sums.store(target, call.out.row, rows, (int)call.value_width);
  }
}
""",
)


def tile_names(dtype: Any, width: int) -> dict[str, Any]:
    """What the names of `TILES` stand for; among them, how many rows of queries a thread has."""
    height = 4 if dtype.itemsize == 8 or width > 128 else 8
    return {"T": dtype, "WIDTH": width, "QUERIES_HEIGHT": height}


def attend(given: Given) -> tuple[Array, Array]:
    """The result (..., T, e), and the logarithms of the totals (heads of all texts, T)."""
    out, log_totals = results_of(given)
    read, call = reading(given, out)
    names = tile_names(out.dtype, call.width_class)
    args = *read, out, log_totals, float(given.scale), call.struct
    tiles = -(-call.queries // (BANDS * names["QUERIES_HEIGHT"]))
    ATTEND.launch("attend", blocks_for(call.heads * tiles, 1), THREADS, *args, **names)
    return out, log_totals
