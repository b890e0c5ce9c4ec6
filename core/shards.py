"""Weights in several safetensors files, and the index that says which tensor is in which.

    {"metadata": {"total_size": 1216},
     "weight_map": {"wte.weight": "model-00001-of-00002.safetensors", ...}}

An index comes from strangers as the files do, and could name files that are none of theirs. So a
shard is a file in the index's own folder, and index and shards must agree on every tensor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfx.core.errors import WeightsError
from tfx.core.files import is_plain_name, reason, shown
from tfx.core.json_file import read_object
from tfx.core.weights import StoredTensor, WeightFile, open_weights
from tfx.core.wording import quoted


class ShardedWeights(Mapping[str, StoredTensor]):
    """The tensors of all shards by name, in the order of the index; made by `open_shards`.

    Attributes:
        path: the index.
    """

    def __init__(self, path: Path, homes: Mapping[str, WeightFile]) -> None:
        self.path = path
        self._homes = homes

    def __getitem__(self, name: str) -> StoredTensor:
        return self._homes[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def __repr__(self) -> str:
        return f"ShardedWeights({str(self.path)!r}, {len(self)} tensors)"


def open_shards(index: str | os.PathLike[str]) -> ShardedWeights:
    """Map every file that a `*.safetensors.index.json` names; nothing is read but their headers.

    Raises:
        WeightsError: the index is unsound, names a file that is missing, damaged or not in its own
            folder, or does not agree with the files on the tensors.
    """
    path = Path(index)
    try:
        homes = _weight_map(read_object(path))
        names = list(dict.fromkeys(homes.values()))
        for name in names:
            _check_place(path.parent, name)
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {shown(path)}: {reason(error)}") from error
    except WeightsError as fault:
        raise WeightsError(f"{shown(path)}: {fault}") from None
    shards = {name: open_weights(path.with_name(name)) for name in names}
    for fault_found in _disagreements(homes, shards):
        raise WeightsError(f"{shown(path)}: {fault_found}")
    return ShardedWeights(path, {tensor: shards[name] for tensor, name in homes.items()})


def _weight_map(index: Mapping[str, object]) -> dict[str, str]:
    found = index.get("weight_map")
    if not isinstance(found, dict) or not found:
        raise WeightsError("it has no weight_map that says where each tensor is")
    for tensor, name in found.items():
        if not isinstance(name, str):
            raise WeightsError(f"tensor {quoted(tensor)} is in {repr(name)[:100]}, not in a file")
        if not is_plain_name(name):
            raise WeightsError(
                f"tensor {quoted(tensor)} is in {quoted(name)}; "
                "expected the plain name of a file in the folder of the index"
            )
    return found


def _check_place(folder: Path, name: str) -> None:
    """Refuse a shard that is missing, or a link that leads out of the folder.

    A folder could have been packed with a link to a private file of whoever unpacks it. One kind
    of link is in order: a Hugging Face cache keeps each file under its digest in `blobs` and has
    links to them in `snapshots/REVISION`. That cache alone writes to both, so its files are as much
    the repository's own as if they lay here.
    """
    try:
        home = folder.resolve(strict=True)
        real = (home / name).resolve(strict=True)
    except (OSError, RuntimeError):  # the latter for a link to itself
        raise WeightsError(f"its shard {quoted(name)} is missing; fetch it again") from None
    if real.parent != home and not any(real.is_relative_to(store) for store in _stores_of(home)):
        raise WeightsError(
            f"its shard {quoted(name)} is a link that leads out of the folder; put the file there"
        )


def _stores_of(folder: Path) -> list[Path]:
    """Where a Hugging Face cache keeps the files of `models--NAME/snapshots/REVISION`: the
    repository's own `blobs`, or one for all repositories."""
    for at in folder.parents:
        if at.name == "snapshots" and at.parent.name.startswith("models--"):
            return [(above / "blobs").resolve() for above in (at.parent, at.parent.parent)]
    return []


def _disagreements(homes: Mapping[str, str], shards: Mapping[str, WeightFile]) -> Iterator[str]:
    for tensor, name in homes.items():
        if tensor not in shards[name]:
            yield f"tensor {quoted(tensor)} should be in {quoted(name)} and is not"
    for name, shard in shards.items():
        for tensor in shard:
            home = homes.get(tensor)
            if home is None:
                yield f"tensor {quoted(tensor)} in {quoted(name)} is not in the index"
            elif home != name:
                yield f"tensor {quoted(tensor)} is in two shards, {quoted(home)} and {quoted(name)}"
