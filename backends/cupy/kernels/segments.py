"""Adding to rows that indices name, in one order every time: the indices are sorted, and what goes
to one row is a segment, which is added up from its first to its last.

Float atomics would be one launch instead of three, and other last digits with each run. Thrust's
sort, behind `cupy.argsort`, makes the host wait.
"""

from __future__ import annotations

import math

import cupy

from tfx.backends.cupy.kernels.cuda import THREADS, Program, blocks_for, contiguous, wide_dtype
from tfx.core.backend import Array

_SORT_THREADS = 512

_SORT = Program(
    rf"""
const int THREADS = {_SORT_THREADS}, WARPS = THREADS / WARP, DIGITS = 256;
"""
    r"""
// How ids are sorted, into one half of `room` (2, count): places in `ids`, those of equal ids in
// their old order. A radix sort by eight bits at a time, whose passes take the halves in turns. All
// of it is one block's work, to be one launch, and little beside the rows that are added after it.
extern "C" __global__ void __launch_bounds__(THREADS) sort(
    const T* ids, Index* room, Index count, Index passes
) {
    __shared__ Index next[DIGITS];  // where the next one with this digit goes
    __shared__ int in_warp[WARPS][DIGITS];  // how many with it a warp has; then, those before it
    int me = threadIdx.x, warp = me / WARP, lane = me % WARP;
    for (int pass = 0; pass < passes; ++pass) {
        const Index* from = room + (1 - pass % 2) * count;
        Index* to = room + pass % 2 * count;
        auto place = [&](Index i) { return pass ? from[i] : i; };
        auto digit = [&](Index i) { return (int)((unsigned long long)ids[i] >> 8 * pass & 255); };

        if (me < DIGITS) next[me] = 0;
        __syncthreads();
        for (Index i = me; i < count; i += THREADS)  // whole numbers: in any order the same sums
            atomicAdd((unsigned long long*)&next[digit(i)], 1ull);
        __syncthreads();
        Index own = me < DIGITS ? next[me] : 0;
        for (int step = 1; step < DIGITS; step *= 2) {
            Index before = step <= me && me < DIGITS ? next[me - step] : 0;
            __syncthreads();
            if (me < DIGITS) next[me] += before;
            __syncthreads();
        }
        if (me < DIGITS) next[me] -= own;

        for (Index start = 0; start < count; start += THREADS) {
            for (int k = me; k < WARPS * DIGITS; k += THREADS) in_warp[k / DIGITS][k % DIGITS] = 0;
            __syncthreads();
            bool has = start + me < count;
            Index item = has ? place(start + me) : 0;
            int mine = digit(item);
            unsigned alike = __ballot_sync(ALL_LANES, has);  // lanes with the same digit
            for (int bit = 0; bit < 8; ++bit) {
                bool is_set = mine >> bit & 1;
                unsigned set = __ballot_sync(ALL_LANES, is_set);
                alike &= is_set ? set : ~set;
            }
            int earlier = __popc(alike & ((1u << lane) - 1));
            if (has && earlier == 0) in_warp[warp][mine] = __popc(alike);
            __syncthreads();
            int total = 0;
            if (me < DIGITS)
                for (int w = 0; w < WARPS; ++w) {
                    int here = in_warp[w][me];
                    in_warp[w][me] = total;
                    total += here;
                }
            __syncthreads();
            if (has) to[next[mine] + in_warp[warp][mine] + earlier] = item;
            __syncthreads();
            if (me < DIGITS) next[me] += total;
        }
        __syncthreads();
    }
}
"""
)

_CHUNK = 32
"""So many updates are added up by one thread for a column, whichever segments they belong to."""

_SUMS = Program(
    rf"const Index CHUNK = {_CHUNK};"
    r"""
// Where things are: x is (outer, length, inner), updates are (outer, count, inner), and a column is
// a pair of places in `outer` and `inner`.
struct Column {
    Index first_of_updates, first_of_x, step;

    __device__ Column(Index column, Index count, Index length, Index inner)
        : first_of_updates(column / inner * count * inner + column % inner),
          first_of_x(column / inner * length * inner + column % inner),
          step(inner) {}
};

__device__ void add_to(T* x, Column at, Id id, Index length, Wide sum) {
    if (id < 0 || id >= length) return;  // what no row has goes nowhere
    T* row = x + at.first_of_x + id * at.step;
    *row = (Wide)*row + sum;
}

// Adds the segments that lie within one chunk. Of those that do not, leaves the parts in `open`
// (chunks, 2, columns): first what an earlier chunk began, then what goes on in the next.
extern "C" __global__ void add_segments(
    const Id* ids, const Index* order, const T* updates, T* x, Wide* open,
    Index count, Index length, Index inner, Index columns
) {
    EACH_NUMBER(i, (count + CHUNK - 1) / CHUNK * columns) {
        Index chunk = i / columns, column = i % columns;
        Column at(column, count, length, inner);
        Index first = chunk * CHUNK, end = min(first + CHUNK, count);
        bool began_before = first > 0 && ids[order[first - 1]] == ids[order[first]];
        Wide sum = 0;
        for (Index k = first; k < end; ++k) {
            Id id = ids[order[k]];
            sum += (Wide)updates[at.first_of_updates + order[k] * inner];
            bool is_last = k + 1 == count || ids[order[k + 1]] != id;
            if (!is_last && k + 1 < end) continue;
            if (is_last && !began_before)
                add_to(x, at, id, length, sum);
            else
                open[(2 * chunk + !began_before) * columns + column] = sum;
            sum = 0;
            began_before = false;
        }
    }
}

// Adds the others, each by the chunk that it begins in.
extern "C" __global__ void join_segments(
    const Id* ids, const Index* order, T* x, const Wide* open,
    Index count, Index length, Index inner, Index columns
) {
    EACH_NUMBER(i, count / CHUNK * columns) {
        Index chunk = i / columns, column = i % columns;
        Index first = chunk * CHUNK, end = first + CHUNK;
        Id id = ids[order[end - 1]];
        bool ends_here = end == count || ids[order[end]] != id;
        bool began_before = first > 0 && ids[order[first - 1]] == id;
        if (ends_here || began_before) continue;
        Wide sum = open[(2 * chunk + 1) * columns + column];
        for (; end < count && ids[order[end]] == id; end += CHUNK)
            sum += open[2 * (end / CHUNK) * columns + column];
        add_to(x, Column(column, count, length, inner), id, length, sum);
    }
}
"""
)


def add_at(x: Array, indices: Array, updates: Array, *, axis: int = 0) -> None:
    """Add to `x`, which has no gaps and is changed, at each index along `axis` its update, as
    `scatter_add` of a backend does."""
    count, length = indices.size, x.shape[axis]
    if not updates.size:
        return
    indices, updates = contiguous(indices), contiguous(updates)
    order = _order(indices, length)
    inner = math.prod(x.shape[axis + 1 :])
    columns = x.size // length
    chunks = -(-count // _CHUNK)
    types = {"T": x.dtype, "Id": indices.dtype}
    sizes = count, length, inner, columns
    open_parts = cupy.empty((chunks, 2, columns), wide_dtype(x.dtype))
    grid = blocks_for(chunks * columns), THREADS
    added = indices, order, updates, x, open_parts
    _SUMS.launch("add_segments", *grid, *added, *sizes, **types)
    if chunks > 1:
        joined = indices, order, x, open_parts
        _SUMS.launch("join_segments", *grid, *joined, *sizes, **types)


def _order(indices: Array, length: int) -> Array:
    """What sorts the indices, below `length`, and keeps the order of equal ones."""
    passes = max(1, -(-(length - 1).bit_length() // 8))
    room = cupy.empty((2, indices.size), "int64")
    given = indices, room, indices.size, passes
    _SORT.launch("sort", 1, _SORT_THREADS, *given, T=indices.dtype)
    return room[(passes - 1) % 2]
