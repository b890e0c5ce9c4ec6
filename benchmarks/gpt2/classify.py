"""Two classifiers fine-tuned from gpt2-tiny, next to the majority class and TF-IDF.

The texts come with an old release of vaderSentiment (MIT licence; Hutto and Gilbert 2014, "VADER: a
parsimonious rule-based model for sentiment analysis of social media text"):

    pip download --no-deps --no-build-isolation --no-binary :all: vaderSentiment==0.5
    pip install scikit-learn
    python benchmarks/gpt2/classify.py vaderSentiment-0.5.zip

- sentiment: is a snippet of a film review positive? By the mean of twenty people's ratings.
- topic: is a snippet of a film review, a product review, an editorial or a tweet?

A tenth is held out to choose the best checkpoint by, another tenth to judge by. What is printed is
what `tfx eval` finds there. With `--write`, the texts are put into files, and nothing is trained.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

Record = dict[str, str]

FILES = {
    "film": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "editorial": "nytEditorialSnippets_GroundTruth.txt",
    "tweet": "tweets_GroundTruth.txt",
}
TRAINING = [
    *("--steps", "1500", "--batch-size", "16", "--lr", "5e-4", "--eval-every", "250"),
    *("--set", "block_size=96"),
]
"""About three rounds through the texts, of which a twentieth is longer."""

TASKS = ("sentiment", "topic")


def rated(archive: Path) -> dict[str, list[tuple[float, str]]]:
    """The snippets of each kind with their ratings, from -4 to 4."""
    with zipfile.ZipFile(archive) as outer:
        (inner,) = (name for name in outer.namelist() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        packed = io.BytesIO(outer.read(inner))
    found = {}
    with tarfile.open(fileobj=packed) as files:
        for kind, name in FILES.items():
            opened = files.extractfile(f"hutto_ICWSM_2014/{name}")
            assert opened is not None
            lines = opened.read().decode("utf-8", "replace").splitlines()
            rows = (line.split("\t", 2) for line in lines if line.count("\t") >= 2)
            found[kind] = [(float(rating), html.unescape(text)) for _, rating, text in rows]
    return found


def records(archive: Path) -> dict[str, list[Record]]:
    """Labelled texts by the name of the task, in an order drawn by a seed."""
    snippets = rated(archive)
    tasks = {
        "sentiment": [
            {"text": text, "label": "positive" if rating > 0 else "negative"}
            for rating, text in snippets["film"]
            if rating
        ],
        "topic": [
            {"text": text, "label": kind} for kind, rows in snippets.items() for _, text in rows
        ],
    }
    for rows in tasks.values():
        random.Random(0).shuffle(rows)
    return tasks


def written(rows: list[Record], folder: Path) -> dict[str, list[Record]]:
    """The parts of a data set, each in a file of its own."""
    tenth = len(rows) // 10
    parts = {"val": rows[:tenth], "test": rows[tenth : 2 * tenth], "train": rows[2 * tenth :]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return parts


def tfx(*args: str) -> dict[str, float]:
    """What a command prints as JSON."""
    command = [sys.executable, "-m", "tfx", *args, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def fine_tuned(folder: Path, backend: str) -> tuple[float, float]:
    """Accuracy and macro F1 of gpt2-tiny on the test file."""
    out = folder / "run"
    how = ["--task", "text-classification", "-b", backend]
    tfx("train", "gpt2-tiny", *how, "--data", str(folder), "--out", str(out), *TRAINING)
    data = str(folder / "test.jsonl")
    found = tfx("eval", "gpt2-tiny", *how, "--weights", str(out), "--data", data)
    return found["accuracy"], found["f1_macro"]


def baselines(parts: dict[str, list[Record]]) -> dict[str, tuple[float, float]]:
    """The same of the majority class, and of logistic regression on TF-IDF of words and pairs."""
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline

    models = {
        "majority class": DummyClassifier(),
        "TF-IDF": make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=10, max_iter=1000),
        ),
    }
    train, test = ([[row[key] for row in parts[part]] for key in ("text", "label")]
                   for part in ("train", "test"))  # fmt: skip
    found = {}
    for name, model in models.items():
        said = model.fit(*train).predict(test[0])
        found[name] = (accuracy_score(test[1], said), f1_score(test[1], said, average="macro"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path, help="vaderSentiment-0.5.zip")
    parser.add_argument("--out", type=Path, default=Path("runs/classify"))
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--only", choices=TASKS)
    parser.add_argument("--write", action="store_true", help="write the files, and no more")
    args = parser.parse_args()
    for name, rows in records(args.archive).items():
        if args.only not in (None, name):
            continue
        folder = args.out / name
        parts = written(rows, folder)
        sizes = ", ".join(f"{part} {len(found)}" for part, found in parts.items())
        print(f"{name} in {folder}: {sizes}")
        if args.write:
            continue
        figures = baselines(parts) | {"gpt2-tiny": fine_tuned(folder, args.backend)}
        for who, (accuracy, f1) in figures.items():
            print(f"  {who:15} accuracy {accuracy:.4f} | f1 macro {f1:.4f}")


if __name__ == "__main__":
    main()
