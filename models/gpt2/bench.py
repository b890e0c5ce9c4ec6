"""`tfx bench gpt2`: what is timed of a GPT-2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from tfx.core.backend import Backend
from tfx.core.dtypes import DType, as_dtype
from tfx.core.errors import UsageError
from tfx.core.generation import GenerationOptions, Token, stream
from tfx.core.hub import is_cached
from tfx.core.optim import TrainState
from tfx.core.parameters import Parameters
from tfx.core.recipe import BenchSettings, Part, Work, computable
from tfx.core.schedules import cosine
from tfx.core.seeds import host_generator
from tfx.core.storage import Storage
from tfx.core.weights import StoredTensor
from tfx.models.gpt2.data import Corpus, Ids
from tfx.models.gpt2.initial import initial_weights
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.options import NEW_ATTN_PDROP, Options
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.training import step_of
from tfx.models.gpt2.training_run import Run
from tfx.models.gpt2.weights import read_pretrained, write_pretrained

SEED = 0

PROMPT_TOKENS, NEW_TOKENS = 128, 32
TRAINED_ROWS, BLOCK_SIZE = 4, 256
"""Unless others are asked for, as far as the model has positions for them."""

MOST_STEPS = 100_000
"""So many training steps have a learning rate: more than anybody waits for."""

Note = Callable[[str], None]


def weights_to_bench(preset: Preset, settings: BenchSettings, folder: Path, note: Note) -> Path:
    """As in `Benchable`."""
    here = isinstance(preset.source, Path) or is_cached(preset.source)
    if settings.weights is not None or here:
        return find_weights(preset, settings.weights, note)
    note(f"weights: random ones, as those of {preset.name} are not here; --weights names others")
    drawn = initial_weights(preset.config, SEED, DType.float32)
    stored = {name: StoredTensor(DType.float32, array) for name, array in drawn.items()}
    write_pretrained(folder, preset.config, stored, {})
    return folder


def work(part: Part, preset: Preset, settings: BenchSettings, backend: Backend, note: Note) -> Work:
    """As in `Benchable`.

    Raises:
        TfxError: the weights, the dtype or the sizes will not do.
    """
    if part == "train":
        if settings.quantize is not None:
            raise UsageError(
                f"--quantize {settings.quantize}: weights in fewer bits are not trained; add "
                "--only load, prefill or decode"
            )
        return _train(preset, settings, backend, note)
    assert settings.weights is not None
    path = find_weights(preset, settings.weights, note)
    dtype, storage = as_dtype(settings.dtype or "float32"), Storage.asked(settings)

    def load(_: Any = None) -> LanguageModel:
        return LanguageModel.load(path, backend, lambda line: None, dtype, storage)

    if part == "load":
        return Work("open the weights", str(load().dtype), load)
    return (_prefill if part == "prefill" else _decode)(load(), settings)


def _prefill(model: LanguageModel, settings: BenchSettings) -> Work:
    prompts = _prompts(model, settings, new=1)
    rows, length = len(prompts), len(prompts[0])

    def read(_: Any) -> None:
        for _ in stream(model, prompts, GenerationOptions(max_new_tokens=1)):
            pass

    return Work(f"{rows} x {length} tokens", str(model.dtype), read, tokens=rows * length)


def _decode(model: LanguageModel, settings: BenchSettings) -> Work:
    new = settings.max_new_tokens or min(NEW_TOKENS, model.max_positions // 4)
    prompts = _prompts(model, settings, new=new + 1)  # the first one ends the reading
    rows = len(prompts)

    def begin() -> Iterator[Token]:
        tokens = stream(model, prompts, GenerationOptions(max_new_tokens=new + 1))
        for _ in islice(tokens, rows):
            pass
        return tokens

    def go_on(tokens: Iterator[Token]) -> None:
        for _ in tokens:
            pass

    what = f"{rows} x 1 token, {new} times after {len(prompts[0])}"
    return Work(what, str(model.dtype), go_on, begin, steps=new, tokens=rows * new)


def _prompts(model: LanguageModel, settings: BenchSettings, new: int) -> list[list[int]]:
    """Random ids, as many as are asked for, with room behind them."""
    rows, room = settings.batch_size or 1, model.max_positions
    length = settings.prompt_tokens or min(PROMPT_TOKENS, room // 2)
    if length + new - 1 > room:  # the last token is not read
        raise UsageError(
            f"--prompt-tokens {length} and --max-new-tokens {new - 1}: the model has {room} "
            "positions"
        )
    ids: list[list[int]] = _random_ids(model.vocab_size, "prompt", (rows, length)).tolist()
    return ids


def _random_ids(vocab_size: int, purpose: str, shape: tuple[int, ...]) -> Ids:
    return host_generator(SEED, purpose).integers(0, vocab_size, shape)


def _train(preset: Preset, settings: BenchSettings, backend: Backend, note: Note) -> Work:
    """Steps as `tfx train` takes them, on random tokens."""
    if settings.weights is None:
        config = replace(preset.config, attn_pdrop=NEW_ATTN_PDROP)
    else:
        config = read_pretrained(find_weights(preset, settings.weights, note), note).config
    dtype = computable(preset.name, settings.dtype or "float32", backend, never={DType.float16})
    options = Options(
        dtype=str(dtype),
        batch_size=settings.batch_size or TRAINED_ROWS,
        block_size=settings.block_size or min(BLOCK_SIZE, config.n_positions),
    )
    options.check(config)
    ids = _random_ids(config.vocab_size, "corpus", (16 * options.block_size,))
    drawn = initial_weights(config, SEED, dtype)
    state = TrainState.start(Parameters.from_host(drawn, backend, dtype))
    del drawn
    run = Run(options, config, None, Path(), Corpus(ids, ids[:0]), state)
    advance = step_of(run, cosine(MOST_STEPS, options.lr, options.min_lr, options.warmup_steps))
    taken = 0

    def step(_: Any) -> None:
        nonlocal taken
        run.state, loss, _ = advance(run.state, taken)
        loss.item()
        taken += 1

    what = f"{options.batch_size} x {options.block_size} tokens"
    return Work(what, str(dtype), step, tokens=run.tokens_a_step)
