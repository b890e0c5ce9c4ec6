"""`tfx tokenizer train`, `encode` and `decode`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tfx.cli import options
from tfx.cli.output import emit, emit_json, is_terminal, tell
from tfx.core.errors import DataError, UsageError
from tfx.core.files import open_regular, reason, shown
from tfx.core.wording import quoted

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)

TokenizerPath = Annotated[
    Path,
    typer.Option(
        "--tokenizer",
        parser=options.path,
        metavar="PATH",
        help="A folder, or the tokenizer.json or vocab.json in it.",
    ),
]


@app.callback()
def without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        tell(context.get_help())
        raise typer.Exit(UsageError.exit_code)


@app.command()
def train(
    data: Annotated[
        Path,
        typer.Option(
            parser=options.path,
            metavar="PATH",
            help="Text in UTF-8: a file, or a folder's .txt files.",
        ),
    ],
    vocab_size: Annotated[
        int, typer.Option(metavar="INT", help="Tokens in all: 256 bytes, special ones, merges.")
    ],
    out: Annotated[
        Path,
        typer.Option(parser=options.path, metavar="DIR", help="Folder to write the tokenizer to."),
    ],
    special: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN",
            help="A token that stands for no text; repeatable. By default <|endoftext|>.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Learn a byte-level BPE vocabulary from text.

    Nothing in the text is normalised. transformers reads what is written, and so does tfx:
    vocab.json with merges.txt, tokenizer.json, tokenizer_config.json.
    """
    from tfx.core.tokenizer import save_tokenizer, train_tokenizer
    from tfx.core.tokenizer.corpus import read_texts
    from tfx.core.tokenizer.files import END_OF_TEXT
    from tfx.core.tokenizer.save import FILES, check_free

    check_free(out)
    names = special or [END_OF_TEXT]
    tokenizer = train_tokenizer(read_texts(data), vocab_size, names)
    save_tokenizer(tokenizer, out)
    if as_json:
        emit_json(
            {
                "out": out,
                "files": FILES,
                "vocab_size": tokenizer.vocab_size,
                "merges": len(tokenizer.merges),
                "special_tokens": {name: tokenizer.token_to_id(name) for name in names},
                "eos_token": tokenizer.eos_token,
            }
        )
    else:
        emit(f"{shown(out)}: {tokenizer.vocab_size} tokens, special: {' '.join(names)}")


@app.command()
def encode(
    tokenizer: TokenizerPath,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="Text to encode.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            parser=options.path,
            metavar="FILE",
            help="Take it from a file; - is stdin.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Turn text to token ids.

    Without TEXT, stdin is read. Files and stdin are taken whole, their last line feed included;
    special tokens in the text become their ids.
    """
    from tfx.core.tokenizer import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    ids = loaded.encode(_text_of(text, file))
    if as_json:
        emit_json({"token_ids": ids, "tokens": list(map(loaded.id_to_token, ids))})
    else:
        emit(" ".join(map(str, ids)))


@app.command()
def decode(
    tokenizer: TokenizerPath,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Token ids.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Turn token ids to text.

    Without any, they are read from stdin, with blanks or line feeds between them. Bytes that are
    no UTF-8 become U+FFFD. Nothing is put behind the text, but for a line feed on a terminal.
    """
    from tfx.core.tokenizer import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    numbers = _numbers(" ".join(ids) if ids else _stdin("ids to decode; give them"))
    text = loaded.decode(numbers)
    if as_json:
        emit_json({"token_ids": numbers, "text": text})
    else:
        _write(text)


def _text_of(text: str | None, file: Path | None) -> str:
    """The text from the one place that has it."""
    if text is not None and file is not None:
        raise UsageError("TEXT and --file each give a text; keep one of them")
    if text is not None:
        return text
    if file is None or str(file) == "-":
        return _stdin("text to encode; give TEXT or --file")
    try:
        with open_regular(file) as opened:
            return _decoded(opened.read(), shown(file))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {shown(file)}: {reason(error)}") from None


def _stdin(wanted: str) -> str:
    """All of stdin; nobody is kept waiting who did not mean to type."""
    if sys.stdin is None or is_terminal(sys.stdin):
        raise UsageError(f"no {wanted}, or send it through a pipe")
    return _decoded(sys.stdin.buffer.read(), "stdin")


def _decoded(raw: bytes, origin: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{origin} is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset {error.start}"
        ) from None


def _numbers(text: str) -> list[int]:
    for word in text.split():
        if not (word.isascii() and word.isdecimal() and len(word) < 20):
            raise UsageError(f"expected token ids, as in 15496 995, got {quoted(word)}")
    return list(map(int, text.split()))


def _write(text: str) -> None:
    """Put a text on stdout as it is, in UTF-8 whatever the locale."""
    if sys.stdout is None:
        return
    if is_terminal(sys.stdout) and not text.endswith("\n"):
        text += "\n"
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
