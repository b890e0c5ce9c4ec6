"""Faults of kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from broken_backends import broken

from tfx.backends.numpy.backend import NumpyBackend
from tfx.testing import Level

Array = Any


def broken_kernel(
    name: str, part: str, level: Level = Level.KERNELS, check: str = ""
) -> Callable[[Callable[..., Any]], type[NumpyBackend]]:
    """Enter NumPy with another `part` of the kernel `name`: the decorated function, which gets the
    sound one first, and whose docstring says what is wrong."""

    def enter(fault: Callable[..., Any]) -> type[NumpyBackend]:
        def __init__(self: NumpyBackend, device: str | None = None) -> None:
            NumpyBackend.__init__(self, device)
            sound = self.fused[name]
            self.fused[name] = replace(sound, **{part: partial(fault, getattr(sound, part))})

        title = "".join(map(str.capitalize, fault.__name__.split("_")))
        body = {"__init__": __init__, "__doc__": fault.__doc__}
        return broken(level, check or f"{name} ")(type(title, (NumpyBackend,), body))

    return enter


# ---- forward ---------------------------------------------------------------------------------


@broken_kernel("gelu", "forward")
def tanh_for_erf(forward: Any, B: Any, x: Array, *, approximate: str) -> Any:
    """gelu is the approximation by tanh where erf is asked for."""
    return forward(B, x, approximate="tanh")


@broken_kernel("gelu", "forward", check="gelu float64 kernel")
def gelu_in_float32(forward: Any, B: Any, x: Array, **params: Any) -> Any:
    """gelu of float64 is computed in float32."""
    out, saved = forward(B, x.astype(np.float32), **params)
    return out.astype(x.dtype), saved


@broken_kernel("linear", "forward", check="linear kernel changes no argument")
def adds_in_place(
    forward: Any, B: Any, x: Array, w: Array, b: Any, residual: Any, **how: Any
) -> Any:
    """linear adds to the residual in place."""
    out, saved = forward(B, x, w, b, residual, **how)
    if residual is None or not residual.flags.writeable:
        return out, saved
    residual[...] = out
    return residual, saved


@broken_kernel("rms_norm", "forward")
def eps_outside(forward: Any, B: Any, x: Array, gain: Any, *, eps: float) -> Any:
    """rms_norm adds eps to the root, not under it."""
    out, saved = forward(B, x, gain, eps=eps)
    square = np.mean(x * x, -1, keepdims=True)
    return out * np.sqrt(square + eps) / (np.sqrt(square) + eps), saved


@broken_kernel("layer_norm", "forward")
def bessel(forward: Any, B: Any, x: Array, gain: Array, bias: Array, *, eps: float) -> Any:
    """layer_norm divides the squares by n - 1."""
    n = x.shape[-1]
    _, saved = forward(B, x, gain, bias, eps=eps)
    off = x - x.mean(-1, keepdims=True)
    variance = (off * off).sum(-1, keepdims=True) / (n - 1)
    return off / np.sqrt(variance + eps) * gain + bias, saved


@broken_kernel("softmax", "forward")
def nan_where_nothing_is_seen(forward: Any, B: Any, x: Array) -> Any:
    """softmax of a row of nothing but -inf is NaN."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True), None


@broken_kernel("attention", "forward")
def mask_ignored(forward: Any, B: Any, *args: Any, **how: Any) -> Any:
    """attention does not look at what is visible."""
    q, k, v, scale, offset, _, factor = args
    return forward(B, q, k, v, scale, offset, None, factor, **how)


@broken_kernel("attention", "forward")
def offset_ignored(forward: Any, B: Any, *args: Any, **how: Any) -> Any:
    """attention takes the first query for the first position."""
    q, k, v, scale, _, visible, factor = args
    return forward(B, q, k, v, scale, None, visible, factor, **how)


@broken_kernel("attention", "forward")
def one_tile_of_keys(forward: Any, B: Any, *args: Any, **how: Any) -> Any:
    """attention does not see beyond 128 keys."""
    q, k, v, *more = args
    out, saved = forward(B, *args, **how)
    if k.shape[-2] > 128:
        out, _ = forward(B, q, k[..., :128, :], v[..., :128, :], *more, **how)
    return out, saved


@broken_kernel("cross_entropy", "forward")
def mean_of_rows(forward: Any, B: Any, logits: Array, targets: Array) -> Any:
    """cross_entropy gives the mean of the rows."""
    out, saved = forward(B, logits, targets)
    return np.asarray(out.mean()), saved


@broken_kernel("adamw_step", "forward")
def eps_under_the_root(forward: Any, B: Any, *args: Any, eps: float, **betas: float) -> Any:
    """adamw_step adds eps under the root."""
    p, lr, v_up = args[0], args[4][0], args[4][2]
    (new, m, v), saved = forward(B, *args, eps=eps, **betas)
    under = np.sqrt(v * v_up + eps)
    decayed = 0 if args[5] is None else lr * args[5] * p
    step = (p - new - decayed) * (np.sqrt(v * v_up) + eps) / under
    return (p - step - decayed, m, v), saved


@broken_kernel("adamw_step", "forward")
def decay_in_the_gradient(forward: Any, B: Any, *args: Any, **how: Any) -> Any:
    """adamw_step adds the decay to the gradient, as Adam with L2 does."""
    p, g, m, v, rates, decay, *more = args
    return forward(B, p, g if decay is None else g + decay * p, m, v, rates, None, *more, **how)


@broken_kernel("adamw_step", "forward")
def health_ignored(forward: Any, B: Any, *args: Any, **how: Any) -> Any:
    """adamw_step moves although the step is not healthy."""
    *state, _, factor = args
    return forward(B, *state, None, factor, **how)


@broken_kernel("adamw_step", "forward")
def whole_blocks_only(forward: Any, B: Any, *args: Any, **how: Any) -> Any:
    """adamw_step forgets what is left after the last whole block of 1024."""
    p = args[0]
    (new, m, v), saved = forward(B, *args, **how)
    if p.ndim == 1 and p.size > 1024:
        new[p.size // 1024 * 1024 :] = p[p.size // 1024 * 1024 :]
    return (new, m, v), saved


# ---- gradients -------------------------------------------------------------------------------


@broken_kernel("linear", "vjp", check="linear float32 kernel core")
def no_gradient_of_the_bias(vjp: Any, B: Any, *args: Any, **how: Any) -> Any:
    """The gradient of linear by its bias is zero."""
    by_x, by_w, by_b, by_residual = vjp(B, *args, **how)
    return by_x, by_w, None if by_b is None else np.zeros_like(by_b), by_residual


@broken_kernel("embedding", "vjp", check="embedding float32 kernel core")
def last_id_wins(
    vjp: Any, B: Any, g: Array, out: Array, saved: Any, table: Array, ids: Array
) -> Any:
    """The gradient of embedding keeps one of the rows of a repeated id."""
    found = np.zeros_like(table)
    found[ids] = g
    return found, None


@broken_kernel("layer_norm", "vjp", check="layer_norm float32 kernel core")
def mean_is_a_constant(
    vjp: Any, B: Any, g: Array, out: Array, saved: Any, *args: Any, **how: Any
) -> Any:
    """The gradient of layer_norm by x takes mean and variance for constants."""
    (x, gain, _), (_, d) = args, saved
    _, *others = vjp(B, g, out, saved, *args, **how)
    return (g.reshape(-1, x.shape[-1]) * gain / d).reshape(x.shape), *others


@broken_kernel("attention", "vjp", check="attention float64 kernel core")
def factor_forgotten(
    vjp: Any, B: Any, g: Array, out: Array, saved: Any, *args: Any, **how: Any
) -> Any:
    """The gradient of attention by the values does not look at the factor."""
    by_q, by_k, by_v, *others = vjp(B, g, out, saved, *args, **how)
    return by_q, by_k, by_v if args[6] is None else 2 * by_v, *others


# ---- in one dtype alone, or in none ------------------------------------------------------------


@broken_kernel("linear", "forward", check="linear float32 kernel")
def tanh_in_float32(forward: Any, B: Any, x: Array, *rest: Any, **how: Any) -> Any:
    """linear takes the approximation of gelu, in float32 alone."""
    if x.dtype == np.float32 and how["activation"] == "gelu":
        how["activation"] = "gelu_new"
    return forward(B, x, *rest, **how)


@broken_kernel("adamw_step", "forward", check="adamw_step float32 kernel")
def last_block_in_float32(forward: Any, B: Any, p: Array, *rest: Any, **how: Any) -> Any:
    """adamw_step leaves what lies behind 4096 numbers, in float32 alone."""
    (new, m, v), saved = forward(B, p, *rest, **how)
    if p.dtype == np.float32:
        new = np.array(new)
        new.reshape(-1)[4096:] = p.reshape(-1)[4096:]
    return (new, m, v), saved


@broken_kernel("softmax", "supports", check="softmax float16 kernel")
def halves_too(supports: Any, B: Any, x: Array, **how: Any) -> bool:
    """softmax takes float16, which overflows in its sums."""
    return bool(supports(B, x, **how)) or x.dtype == np.float16


@broken_kernel("gelu", "vjp", check="gelu kernel changes no argument")
def eats_the_gradient(vjp: Any, B: Any, g: Array, *rest: Any, **how: Any) -> Any:
    """gelu's derivative leaves nothing of the gradient it was given."""
    found = vjp(B, np.array(g), *rest, **how)
    if g.flags.writeable:
        g[...] = 0
    return found


@broken_kernel("gelu", "supports", check="gelu kernel changes no argument")
def never(supports: Any, B: Any, x: Array, **how: Any) -> bool:
    """gelu supports nothing, and so never runs."""
    return False


@broken_kernel("softmax", "supports", check="softmax kernel refuses wrong input")
def takes_integers(supports: Any, B: Any, x: Array, **how: Any) -> bool:
    """softmax takes integers, which the composed form refuses."""
    return bool(supports(B, x, **how)) or x.dtype.kind == "i"
