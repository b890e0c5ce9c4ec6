"""`--config FILE`: options written down in TOML or JSON, for what the command line leaves open.

    steps = 500
    batch-size = 4
    backend = "torch"

    [set]
    n_layer = 2

A key is the name of an option, with `-` or `_`. The table `set` holds what `--set` would.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from tfx.core.wording import did_you_mean

NOT_IN_A_FILE = {"config", "help"}


def use_config(context: typer.Context, path: Path | None) -> Path | None:
    """Callback of `--config`: what the file says becomes the default of the options.

    Click then gives it its rank: behind the flags and the environment, before the model's own
    defaults; and checks each value as if it had been typed.
    """
    if path is not None:
        options = {
            option.opts[0].lstrip("-").replace("-", "_"): option
            for option in context.command.params
            if option.param_type_name == "option"
        }
        for name in NOT_IN_A_FILE & options.keys():
            del options[name]
        context.default_map = {}
        for key, value in _read(path).items():
            option = options.get(key.replace("-", "_"))
            if option is None:
                hint = did_you_mean(key.replace("-", "_"), options).replace("_", "-")
                raise typer.BadParameter(f"{path} has an unknown key {key!r}.{hint}")
            if value is not None:
                context.default_map[str(option.name)] = _as_typed(value, key, option, path)
    return path


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            import tomllib

            content = tomllib.loads(text)
        elif path.suffix == ".json":
            import json

            content = json.loads(text)
        else:
            raise typer.BadParameter(f"{path} must end in .toml or .json")
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, not TOML, not JSON
        raise typer.BadParameter(f"{path} is not valid {path.suffix[1:]}: {error}") from None
    if not isinstance(content, dict):
        raise typer.BadParameter(f"{path} must hold an object with an option a key")
    return content


def _as_typed(value: Any, key: str, option: Any, path: Path) -> str | list[str]:
    """The value as the command line would give it: texts, which the option then reads."""
    if option.name == "set_" and isinstance(value, dict):
        return [f"{name}={_text(item)}" for name, item in value.items()]
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict | list) for item in items) or (
        isinstance(value, list) and not option.multiple
    ):
        raise typer.BadParameter(f"{key!r} in {path} must be one value, got {value!r}")
    texts = [_text(item) for item in items]
    return texts if option.multiple else texts[0]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
