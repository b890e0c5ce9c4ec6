"""Time gpt2-tiny, which is trained, with guessed tokens against one token at a time.

    python benchmarks/gpt2/speculation.py --rows 1 --tokens 240

Greedy texts, which repeat themselves: all ways must give the same ids. Rounds are interleaved; a
ratio is the median over the rounds of plain time by time with guesses.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.generation import GenerationOptions, Speculation, generate
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import BUNDLED

BEGINNINGS = (
    *("\nROMEO:\n", "\nJULIET:\nAy, ", "First Citizen:\n", "KING:\nWhat ", "All:\n"),
    *("\nNurse:\nMadam", "\nROMEO:\nIs the day so young?\n", "O "),
)


@dataclass
class Way:
    """How to generate, and what was measured of it."""

    name: str
    length: int | None
    seconds: list[float] = field(default_factory=list)
    verifying: list[float] = field(default_factory=list)
    last: Speculation = field(default_factory=Speculation)

    def run(
        self, model: LanguageModel, prompts: list[list[int]], options: GenerationOptions
    ) -> list[list[int]]:
        self.last = Speculation(length=self.length)
        began = time.perf_counter()
        texts = generate(model, prompts, options, speculation=self.last)
        self.seconds.append(time.perf_counter() - began)
        self.verifying.append(self.last.verify_s / self.seconds[-1])
        return [text.token_ids for [text] in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1, help="texts at a time (default 1)")
    parser.add_argument("--tokens", type=int, default=240, help="new tokens (default 240)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default 7)")
    args = parser.parse_args()

    model = LanguageModel.load(BUNDLED, NumpyBackend(), print)
    assert model.tokenizer is not None
    beginnings = [BEGINNINGS[i % len(BEGINNINGS)] for i in range(args.rows)]
    prompts = [model.tokenizer.encode(text) for text in beginnings]
    options = GenerationOptions(max_new_tokens=args.tokens)
    plain = Way("plain", 0)
    ways = [plain, *(Way(f"lookup of {n}", n) for n in (2, 4, 8)), Way("lookup, its pace", None)]
    expected = plain.run(model, prompts, options)
    for way in ways:
        if way.run(model, prompts, options) != expected:
            raise SystemExit(f"{way.name} gives other ids")
        way.seconds.clear()
        way.verifying.clear()
    for _ in range(args.repeats):
        for way in ways:
            way.run(model, prompts, options)

    print(
        f"{'':18} {'tokens/s':>9} {'ratio':>6} {'spread':>11} {'right':>6} {'a pass':>6} verifying"
    )
    for way in ways:
        ratios = [p / s for p, s in zip(plain.seconds, way.seconds, strict=True)]
        speed = args.rows * args.tokens / statistics.median(way.seconds)
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        line = f"{way.name:18} {speed:9.0f} {statistics.median(ratios):6.2f} {spread:>11}"
        if way.last.acceptance_rate is not None and way.last.tokens_per_pass is not None:
            line += f" {way.last.acceptance_rate:6.0%} {way.last.tokens_per_pass:6.2f}"
            line += f" {statistics.median(way.verifying):9.0%}"
        print(line)


if __name__ == "__main__":
    main()
