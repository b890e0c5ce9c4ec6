"""`sample_token`: the next token where its logits lie. Three launches, or one at temperature 0.

A block looks at a whole row, and finds the largest logit and the k-th; then many turn logits into
weights; last, a block drops what top-p and min-p leave out, and finds where the sum of the rest
passes the uniform number. Weights are whole numbers, as on the host (`tfx.core.generation.logits`):
their sum is the same in any order, so many threads find the same token as one.
"""

from __future__ import annotations

import math

import cupy
import numpy as np

from tfx.backends.cupy.kernels.cuda import (
    MOST_BLOCKS,
    OVER_BLOCK,
    THREADS,
    Program,
    blocks_for,
    contiguous,
)
from tfx.core.backend import Array, Backend, Fused
from tfx.core.generation.logits import MOST_TOKENS, UNIT

_ROW_THREADS = 1024  # in a block that looks at a whole row

_SIZES = f"""
const int ROW_THREADS = {_ROW_THREADS}, WARPS = ROW_THREADS / WARP;
"""

_ORDER = r"""
typedef unsigned long long W;

__device__ inline T infinity() { return __int_as_float(0x7f800000); }
__device__ inline K bits(float x) { return __float_as_uint(x); }
__device__ inline K bits(double x) { return __double_as_longlong(x); }

// Numbers in the order of floats, equal for equal ones.
__device__ inline K key(T x) {
    const K sign = K(1) << (8 * sizeof(K) - 1);
    K word = x == T(0) ? K(0) : bits(x);
    return word & sign ? ~word : word | sign;
}

__device__ inline T heated(T x, double temperature) {
    return temperature == 1 ? x : x / (T)temperature;
}

// The sum over this lane and those before it.
__device__ inline W running_sum_of_lanes(W x) {
    for (int apart = 1; apart < WARP; apart *= 2) {
        W before = __shfl_up_sync(ALL_LANES, x, apart);
        if (threadIdx.x % WARP >= apart) x += before;
    }
    return x;
}

// The largest key for which the weights of the row's numbers from there up reach `needed`; `above`
// takes those of larger ones. Without weights, each counts one. Digit by digit: the sums over all
// numbers that begin as the key does, by their next eight bits, tell which it has.
__device__ K key_that_reaches(const T* row, const W* weights, Index count, double temperature,
                              W needed, W* above) {
    __shared__ W sums[256];
    __shared__ int digit_found;
    __shared__ W larger;
    K prefix = 0;
    W passed = 0;
    for (int shift = 8 * sizeof(K) - 8; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += blockDim.x) sums[i] = 0;
        __syncthreads();
        int digit = 0;
        W sum = 0;  // kept back while the digit is the same: the first one hardly differs
        for (Index i = threadIdx.x; i < count; i += blockDim.x) {
            K here = key(heated(row[i], temperature));
            if ((here >> shift) >> 8 != prefix) continue;
            int next = (here >> shift) & 255;
            if (next != digit) {
                if (sum) atomicAdd(&sums[digit], sum);
                digit = next;
                sum = 0;
            }
            sum += weights ? weights[i] : 1;
        }
        if (sum) atomicAdd(&sums[digit], sum);
        __syncthreads();
        if (threadIdx.x < WARP) {  // eight digits a lane, the largest first
            int first = 255 - 8 * threadIdx.x;
            W mine = 0;
            for (int d = 0; d < 8; d++) mine += sums[first - d];
            W before = passed + running_sum_of_lanes(mine) - mine;
            if (before < needed && needed <= before + mine) {
                int d = first;
                for (; before + sums[d] < needed; d--) before += sums[d];
                digit_found = d;
                larger = before;
            }
        }
        __syncthreads();
        prefix = prefix << 8 | (K)digit_found;
        passed = larger;
        __syncthreads();
    }
    *above = passed;
    return prefix;
}
"""

_LIMITS = r"""
struct Place { T value; Index at; };

struct Likelier {
    __device__ Place operator()(Place a, Place b) const {
        return b.value > a.value || (b.value == a.value && b.at < a.at) ? b : a;
    }
};

// The likeliest token of each row, -1 where logits are not finite; and, with a temperature, the
// largest logit at it, and the key of the least that top-k keeps.
extern "C" __global__ void __launch_bounds__(1024)
sample_limits(const T* logits, Index* ids, T* tops, K* least,
                                             Index count, double temperature, Index k) {
    const T* row = logits + blockIdx.x * count;
    T top = -infinity();
    Index place = count;
    for (Index i = threadIdx.x; i < count; i += blockDim.x) {
        T x = row[i] == row[i] ? row[i] : infinity();  // so that what is no number is noticed
        if (x > top) top = x, place = i;
    }
    Place likeliest = over_block<ROW_THREADS>(Place{top, place}, Likelier());
    top = likeliest.value;
    bool fine = isfinite(top);
    if (fine && temperature > 0) {
        top = heated(top, temperature);
        fine = isfinite(top);
    }
    if (threadIdx.x == 0) ids[blockIdx.x] = fine ? likeliest.at : -1;
    if (!fine || temperature == 0) return;  // the whole block does
    W above;
    K kept = 0;
    if (k && k < count) kept = key_that_reaches(row, nullptr, count, temperature, k, &above);
    if (threadIdx.x == 0) tops[blockIdx.x] = top, least[blockIdx.x] = kept;
}
"""

_WEIGHTS = r"""
// exp(x - the largest), in whole units; nothing for what top-k leaves out.
extern "C" __global__ void sample_weights(const T* logits, const Index* ids, const T* tops,
                                              const K* least, W* weights, Index count,
                                              double temperature, double unit) {
    Index row = blockIdx.y;
    if (ids[row] < 0) return;
    EACH_NUMBER(i, count) {
        T x = heated(logits[row * count + i], temperature);
        double weight = exp((double)x - (double)tops[row]) * unit;
        weights[row * count + i] = key(x) < least[row] ? 0 : (W)rint(weight);
    }
}
"""

_DRAW = r"""
// What comes of a number of each warp: those of the warps before this one, and `all` of them.
__device__ inline W before_this_warp(W mine, W* room, W* all) {
    int warp = threadIdx.x / WARP;
    __syncthreads();
    if (threadIdx.x % WARP == 0) room[warp] = mine;
    __syncthreads();
    W before = 0, total = 0;
    for (int w = 0; w < WARPS; w++) {
        if (w < warp) before += room[w];
        total += room[w];
    }
    *all = total;
    return before;
}

extern "C" __global__ void __launch_bounds__(1024)
sample_draw(const T* logits, Index* ids, const T* tops,
                                           W* all_weights, const double* uniforms, Index count,
                                           double temperature, double without, double least_log) {
    __shared__ W room[WARPS];
    __shared__ W tied;
    if (ids[blockIdx.x] < 0) return;  // the whole block does
    const T* row = logits + blockIdx.x * count;
    W* weights = all_weights + blockIdx.x * count;
    T top = tops[blockIdx.x];
    // A warp takes a stretch of neighbours: what comes before it is what earlier warps have.
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    Index stretch = (count + ROW_THREADS - 1) / ROW_THREADS * WARP, first = warp * stretch;
    Index last = first + stretch;

    // Top-p keeps what is above a key, and of what equals it all but `skipped`, the first ones.
    K least = 0;
    W skipped = 0, rank = 0, total, above;
    if (without > 0) {
        W mine = 0;
        for (Index i = first + lane; i < last; i += WARP) mine += i < count ? weights[i] : 0;
        before_this_warp(sum_of_lanes(mine), room, &total);
        W may_go = (W)(without * (double)total);
        W needed = total - (may_go < total ? may_go : total - 1);
        least = key_that_reaches(row, weights, count, temperature, needed, &above);
        W equals = 0, all_equals;
        for (Index i = first + lane; i < last; i += WARP)
            if (i < count && key(heated(row[i], temperature)) == least) {
                equals++;
                tied = weights[i];  // whichever writes: they are the same
            }
        rank = before_this_warp(sum_of_lanes(equals), room, &all_equals);
        W kept = (needed - above + tied - 1) / tied;
        skipped = all_equals - kept;
    }

    W mine = 0;
    for (Index i = first + lane; i - lane < last; i += WARP) {
        bool inside = i < count;
        T x = inside ? heated(row[i], temperature) : top;
        bool equal = inside && key(x) == least;
        unsigned lanes = __ballot_sync(ALL_LANES, equal);
        bool kept = inside && key(x) >= least && !(x - top < (T)least_log);
        if (equal && rank + __popc(lanes & ((1u << lane) - 1)) < skipped) kept = false;
        rank += __popc(lanes);
        if (!inside) continue;
        if (!kept) weights[i] = 0;
        mine += weights[i];
    }
    mine = sum_of_lanes(mine);
    W before = before_this_warp(mine, room, &total);
    W target = (W)(uniforms[blockIdx.x] * (double)total);
    if (target >= total) target = total - 1;
    if (target < before || target >= before + mine) return;  // another warp has it
    for (Index i = first + lane;; i += WARP) {
        W running = before + running_sum_of_lanes(i < count ? weights[i] : 0);
        unsigned past = __ballot_sync(ALL_LANES, running > target);
        if (past) {
            if (lane == __ffs(past) - 1) ids[blockIdx.x] = i;
            return;
        }
        before = __shfl_sync(ALL_LANES, running, WARP - 1);
    }
}
"""

_SAMPLING = Program(OVER_BLOCK, _SIZES, _ORDER, _LIMITS, _WEIGHTS, _DRAW)

_KEYS = {np.dtype(np.float32): np.dtype(np.uint32), np.dtype(np.float64): np.dtype(np.uint64)}
"""The type K, of words with as many bits as T has."""


def _sample_token(
    B: Backend,
    logits: Array,
    uniforms: Array | None,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
) -> tuple[Array, None]:
    logits = contiguous(logits)
    rows, count = logits.shape
    T = logits.dtype
    names = {"T": T, "K": _KEYS[T]}
    ids, draws = cupy.empty(rows, "int64"), temperature > 0
    tops = cupy.empty(rows, T) if draws else None
    least = cupy.empty(rows, _KEYS[T]) if draws else None
    heat, share, unit = map(np.float64, (temperature, 1.0 - top_p, UNIT))
    limits = logits, ids, tops, least, count, heat, min(top_k, count)
    _SAMPLING.launch("sample_limits", rows, _ROW_THREADS, *limits, **names)
    if not draws:
        return ids, None
    weights = cupy.empty((rows, count), "uint64")
    weighed = logits, ids, tops, least, weights, count, heat, unit
    _SAMPLING.launch("sample_weights", (blocks_for(count), rows), THREADS, *weighed, **names)
    limit = np.float64(math.log(min_p) if min_p else -math.inf)
    drawn = logits, ids, tops, weights, contiguous(uniforms), count, heat, share, limit
    _SAMPLING.launch("sample_draw", rows, _ROW_THREADS, *drawn, **names)
    return ids, None


def _supports(
    B: Backend, logits: Array, uniforms: Array | None, *, temperature: float, **_: float
) -> bool:
    if logits.ndim != 2 or logits.dtype not in _KEYS or not logits.size:
        return False
    if not 0 < logits.shape[1] <= MOST_TOKENS or len(logits) > MOST_BLOCKS:
        return False
    if uniforms is None:
        return temperature == 0
    return bool(uniforms.shape == logits.shape[:1] and uniforms.dtype == "float64")


SAMPLE_TOKEN = Fused("sample_token", _sample_token, supports=_supports)
