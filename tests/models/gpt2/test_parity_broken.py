"""What is broken on purpose does not pass: each fault, and the checks of parity that notice it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from gpt2_parity import (
    Check,
    Reference,
    check_batch,
    check_beams,
    check_gradients,
    check_greedy,
    check_logits,
    check_padded_logits,
)

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.cache import KVCache
from tfx.core.capture import eager
from tfx.core.creation import arange, tensor
from tfx.core.nn import attention, layer_norm, linear
from tfx.core.tensor import Tensor
from tfx.models.gpt2 import model, passing
from tfx.models.gpt2.model import Config, Params
from tfx.models.gpt2.passing import Pass

pytestmark = pytest.mark.usefixtures("calm")

Patch = pytest.MonkeyPatch
FAULTS: list[Any] = []


def noticed_by(*checks: Check) -> Callable[[Callable[[Patch], None]], None]:
    """A fault to be made, and the checks each of which must then fail."""

    def enter(fault: Callable[[Patch], None]) -> None:
        FAULTS.extend(
            pytest.param(fault, check, id=f"{fault.__name__}-{check.__name__}") for check in checks
        )

    return enter


@cache
def reference() -> Reference:
    return Reference(
        vocab_size=300, n_layer=2, n_embd=24, n_head=2, layer_norm_epsilon=1e-3,
        scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False,
    )  # fmt: skip


# ---- positions -----------------------------------------------------------------------------------

right_positions, right_positions_in_cache = Pass.positions, KVCache.positions


@noticed_by(check_logits, check_greedy, check_gradients)
def positions_begin_at_one(patch: Patch) -> None:
    def wrong(through: Pass, ids: Tensor) -> Tensor:
        return right_positions(through, ids) + 1

    patch.setattr(Pass, "positions", wrong)


@noticed_by(check_greedy)
def one_position_is_had_twice(patch: Patch) -> None:
    def wrong(cache: KVCache, count: int) -> Tensor:
        return right_positions_in_cache(cache, count) - int(cache.length == 8)

    patch.setattr(KVCache, "positions", wrong)


@noticed_by(check_padded_logits)
def padding_has_positions(patch: Patch) -> None:
    def wrong(visible: Tensor) -> Tensor:
        return arange(visible.shape[-1], visible.backend)

    patch.setattr(passing, "positions_among", wrong)


@noticed_by(check_batch, check_beams)
def padding_has_positions_in_the_cache(patch: Patch) -> None:
    def wrong(cache: KVCache, count: int) -> Tensor:
        right = right_positions_in_cache(cache, count)
        return arange(count, right.backend) + cache.length

    patch.setattr(KVCache, "positions", wrong)


# ---- attention -----------------------------------------------------------------------------------


@noticed_by(check_logits, check_padded_logits, check_greedy, check_batch, check_gradients)
def the_next_token_is_seen(patch: Patch) -> None:
    def wrong(
        q: Tensor, k: Tensor, v: Tensor, scale: float, offset: Any, *rest: Any, **more: Any
    ) -> Tensor:
        later = tensor(1, q.backend) if offset is None else offset + 1
        return attention(q, k, v, scale, later, *rest, **more)

    patch.setattr(model, "attention", wrong)


@noticed_by(check_padded_logits, check_batch, check_beams)
def padding_is_seen(patch: Patch) -> None:
    def wrong(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        offset: Any,
        visible: Any,
        *rest: Any,
        **more: Any,
    ) -> Tensor:
        return attention(q, k, v, scale, offset, None, *rest, **more)

    patch.setattr(model, "attention", wrong)


@noticed_by(check_logits, check_greedy)
def all_heads_are_one(patch: Patch) -> None:
    def wrong(*args: Any, heads: int) -> Tensor:
        return attention(*args, heads=1)

    patch.setattr(model, "attention", wrong)


@noticed_by(check_logits, check_greedy)
def keys_and_values_change_places(patch: Patch) -> None:
    def wrong(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **more: Any) -> Tensor:
        return attention(q, v, k, *rest, **more)

    patch.setattr(model, "attention", wrong)


@noticed_by(check_gradients)
def keys_lose_their_gradient(patch: Patch) -> None:
    def wrong(q: Tensor, k: Tensor, *rest: Any, **more: Any) -> Tensor:
        return attention(q, k.detach(), *rest, **more)

    patch.setattr(model, "attention", wrong)


@noticed_by(check_logits, check_greedy)
def scores_are_scaled_by_the_width(patch: Patch) -> None:
    def wrong(config: Config, layer: int) -> float:
        return float(config.n_embd**-0.5) / (layer + 1)

    patch.setattr(Config, "attention_scale", wrong)


@noticed_by(check_logits, check_greedy)
def all_layers_scale_alike(patch: Patch) -> None:
    def wrong(config: Config, layer: int) -> float:
        return float(config.head_size**-0.5)

    patch.setattr(Config, "attention_scale", wrong)


# ---- the cache -----------------------------------------------------------------------------------

right_extend, right_reorder = KVCache.extend, KVCache.reorder


@noticed_by(check_greedy)
def one_slot_is_not_written(patch: Patch) -> None:
    def wrong(cache: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lost = cache.length == 12 and layer == 1
        return right_extend(cache, layer, k * 0 if lost else k, v * 0 if lost else v)

    patch.setattr(KVCache, "extend", wrong)


@noticed_by(check_greedy, check_batch)
def all_layers_share_their_slots(patch: Patch) -> None:
    def wrong(cache: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return right_extend(cache, 0, k, v)

    patch.setattr(KVCache, "extend", wrong)


@noticed_by(check_beams)
def beams_keep_their_order(patch: Patch) -> None:
    def wrong(cache: KVCache, rows: Sequence[int]) -> None:
        right_reorder(cache, sorted(rows))

    patch.setattr(KVCache, "reorder", wrong)


# ---- matrices, norms and the head ----------------------------------------------------------------

right_dense, right_norm = model.dense, model.norm


@noticed_by(check_logits, check_greedy, check_gradients)
def the_square_projection_is_transposed(patch: Patch) -> None:
    def wrong(p: Params, name: str, x: Tensor, *more: Any, **added: Any) -> Tensor:
        if not name.endswith("attn.c_proj"):
            return right_dense(p, name, x, *more, **added)
        return linear(x, p[f"{name}.weight"].T, p[f"{name}.bias"], added.get("residual"))

    patch.setattr(model, "dense", wrong)


@noticed_by(check_logits, check_gradients)
def a_bias_is_left_out(patch: Patch) -> None:
    def wrong(p: Params, name: str, x: Tensor, *more: Any, **added: Any) -> Tensor:
        if name != "h.1.mlp.c_fc":
            return right_dense(p, name, x, *more, **added)
        return linear(x, p[f"{name}.weight"], activation=more[0])

    patch.setattr(model, "dense", wrong)


@noticed_by(check_logits, check_gradients)
def gelu_is_exact(patch: Patch) -> None:
    def wrong(*args: Tensor, activation: Any = None, **more: Any) -> Tensor:
        return linear(*args, activation=activation and "gelu", **more)

    patch.setattr(model, "linear", wrong)


@noticed_by(check_logits, check_gradients)
def epsilon_is_the_usual(patch: Patch) -> None:
    def wrong(x: Tensor, gain: Tensor, bias: Tensor, *, eps: float) -> Tensor:
        return layer_norm(x, gain, bias)

    patch.setattr(model, "layer_norm", wrong)


@noticed_by(check_logits, check_greedy)
def the_last_norm_is_left_out(patch: Patch) -> None:
    def wrong(p: Params, config: Config, name: str, x: Tensor) -> Tensor:
        return x if name == "ln_f" else right_norm(p, config, name, x)

    patch.setattr(model, "norm", wrong)


@noticed_by(check_gradients)
def the_head_loses_its_gradient(patch: Patch) -> None:
    def wrong(p: Params, x: Tensor) -> Tensor:
        return linear(x, p["lm_head.weight"].detach(), outputs_first=True)

    patch.setattr(model, "head", wrong)


# ---- what becomes of them ------------------------------------------------------------------------


@cache
def pass_unbroken(check: Check) -> None:
    check(reference(), reference().on(NumpyBackend()))


@pytest.mark.parametrize(("fault", "check"), FAULTS)
def test_a_fault_is_noticed(
    fault: Callable[[Patch], None], check: Check, monkeypatch: Patch
) -> None:
    pass_unbroken(check)
    fault(monkeypatch)
    with eager(), pytest.raises(AssertionError):  # faults that come and go would be frozen
        check(reference(), reference().on(NumpyBackend()))
