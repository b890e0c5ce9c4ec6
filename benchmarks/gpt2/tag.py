"""A tagger fine-tuned from gpt2-tiny, next to the most frequent tag of each word.

The sentences are those of the Turkish Web Treebank (Google, Apache licence), which the package
`turkish-treebanks` ships: forums, blogs, news and Wikipedia, 4851 of them.

    pip download --no-deps turkish-treebanks==1.0.0
    python benchmarks/gpt2/tag.py turkish_treebanks-1.0.0-py3-none-any.whl

The treebank cuts words where their part of speech changes; they are put together again here, and a
word has the tag of its last piece. A tenth is held out to choose the best checkpoint by, another to
judge by. What is printed is what `tfx eval` finds there. gpt2-tiny has read nothing but
Shakespeare, and spells Turkish almost byte by byte: what it knows of it, it learns here. With
`--write`, the sentences are put into files, and nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

Sentence = dict[str, list[str]]

TRAINING = [
    *("--steps", "1200", "--batch-size", "16", "--lr", "1e-3", "--eval-every", "300"),
    *("--set", "block_size=192"),
]


def sentences(archive: Path) -> Iterator[Sentence]:
    """The words of each sentence with their tags."""
    with zipfile.ZipFile(archive) as files:
        for name in ("data/web.conllu", "data/wiki.conllu"):
            for block in files.read(name).decode().strip().split("\n\n"):
                rows = [line.split("\t") for line in block.split("\n") if line[:1].isdigit()]
                yield whole_words(rows)


def whole_words(rows: list[list[str]]) -> Sentence:
    words, tags, begun = [], [], ""
    for row in rows:
        begun += row[1]
        if row[7] != "ig":  # an inflectional group, which the next goes on from
            words.append(begun.replace(" ", ""))
            tags.append(row[3])
            begun = ""
    return {"tokens": words, "tags": tags}


def written(rows: list[Sentence], folder: Path) -> dict[str, list[Sentence]]:
    """The parts of the treebank, each in a file of its own."""
    random.Random(0).shuffle(rows)
    tenth = len(rows) // 10
    parts = {"val": rows[:tenth], "test": rows[tenth : 2 * tenth], "train": rows[2 * tenth :]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return parts


def most_frequent(train: list[Sentence], test: list[Sentence]) -> tuple[float, float]:
    """The shares of words tagged rightly by the most frequent tag of all, and by that of the word
    where it was seen."""
    of_word: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in train:
        for word, tag in zip(row["tokens"], row["tags"], strict=True):
            of_word[word][tag] += 1
    ((usual, _),) = sum(of_word.values(), Counter()).most_common(1)
    by_all = by_word = count = 0
    for row in test:
        for word, tag in zip(row["tokens"], row["tags"], strict=True):
            own = of_word[word].most_common(1)[0][0] if word in of_word else usual
            by_all, by_word, count = by_all + (usual == tag), by_word + (own == tag), count + 1
    return by_all / count, by_word / count


def tfx(*args: str) -> dict[str, float]:
    """What a command prints as JSON."""
    command = [sys.executable, "-m", "tfx", *args, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path, help="turkish_treebanks-1.0.0-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=Path("runs/tag"))
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--write", action="store_true", help="write the files, and no more")
    args = parser.parse_args()
    parts = written(list(sentences(args.archive)), args.out)
    print(f"{args.out}: {', '.join(f'{part} {len(rows)}' for part, rows in parts.items())}")
    if args.write:
        return
    run, test = str(args.out / "run"), str(args.out / "test.jsonl")
    how = ["--task", "token-classification", "-b", args.backend]
    tfx("train", "gpt2-tiny", *how, "--data", str(args.out), "--out", run, *TRAINING)
    found = tfx("eval", "gpt2-tiny", *how, "--weights", run, "--data", test)
    by_all, by_word = most_frequent(parts["train"], parts["test"])
    print(f"  most frequent tag              accuracy {by_all:.4f}")
    print(f"  most frequent tag of the word  accuracy {by_word:.4f}")
    print(f"  gpt2-tiny                      accuracy {found['accuracy']:.4f}")


if __name__ == "__main__":
    main()
