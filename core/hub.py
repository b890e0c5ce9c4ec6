"""Getting a checkpoint from the Hugging Face Hub, by way of the cache all its users share.

A copy in the cache that is whole is used without asking whether there is a newer one: the second
run needs no connection, and gives what the first one gave. `hf download OWNER/NAME` brings the
cache up to date.

`huggingface_hub` does the downloading: progress bars on a terminal, HF_HOME, HF_TOKEN and the
like are its own. It is imported where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfx.core.data import is_offline
from tfx.core.errors import HubError, WeightsError
from tfx.core.files import reason, shown
from tfx.core.json_file import read_object
from tfx.core.wording import in_words, one_line

SECONDS = 5
"""How long the Hub may take to begin an answer."""

_SETTINGS = ("config.json", "generation_config.json")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"

_PART = r"\w(?:[\w.-]{0,94}\w)?"
_REPO_ID = re.compile(rf"(?!.*(?:--|\.\.)){_PART}/{_PART}(?<!\.git)", re.ASCII)


def is_repo_id(text: str) -> bool:
    """Whether `text` is `owner/name` as the Hub spells it; a relative path may be so too.

    >>> is_repo_id("openai-community/gpt2"), is_repo_id("gpt2"), is_repo_id("./runs/gpt2")
    (True, False, False)
    """
    return _REPO_ID.fullmatch(text) is not None


def snapshot(repo: str, note: Callable[[str], None], revision: str | None = None) -> Path:
    """The local folder with a repository's config, tokenizer and safetensors files.

    What the user's cache lacks is downloaded into it, and nothing else: no pickles, no weights
    for other libraries. `note` is told before, with the number of bytes. The cache learns the
    name of the revision when all of its files are there, the weights last. Under `TFX_OFFLINE=1`
    or `HF_HUB_OFFLINE=1`, or where there is no connection, a copy that lacks at most the
    tokenizer will do.

    Args:
        repo: `owner/name`.
        note: takes one line for the user.
        revision: a branch, a tag or a full commit hash; None is the branch `main`.

    Raises:
        HubError: there is no such repository or revision, it may not be read, it has no
            safetensors, the cache is damaged or full, or there is no connection. Says what to do.
    """
    if not is_repo_id(repo):
        raise HubError(f"{repo!r} cannot be a repository of the Hub; expected OWNER/NAME")
    home = _cache() / f"models--{repo.replace('/', '--')}"
    folder = _cached(home, revision or "main")
    has_model = _has_model(folder)
    if not (has_model and _has_tokenizer(folder)):
        try:
            folder = _downloaded(repo, revision, home, note)
        except _Unreachable:
            if not has_model:
                raise
    _check_weights(folder, home)
    return folder


def is_cached(repo: str) -> bool:
    """Whether the cache has a repository's model, so that `snapshot` would have to fetch at most
    its tokenizer."""
    return _has_model(_cached(_cache() / f"models--{repo.replace('/', '--')}", "main"))


# ---- the cache -----------------------------------------------------------------------------------


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached(home: Path, revision: str) -> Path:
    """Where the files of a revision are if the cache has any."""
    ref = home / "refs" / revision
    try:
        commit = ref.read_text().strip() if ref.is_file() else revision
    except (OSError, ValueError) as error:
        raise _damaged(home, f"cannot read {shown(ref)}: {reason(error)}") from error
    return home / "snapshots" / commit


def _has_tokenizer(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in form) for form in _TOKENIZERS)


def _has_model(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    return all(file.is_file() for file in _weight_files(folder))


def _weight_files(folder: Path) -> list[Path]:
    """The one file, or else those that the index names, be they there or not."""
    index = folder / _INDEX
    if (folder / _WEIGHTS).is_file() or not index.is_file():
        return [folder / _WEIGHTS]
    return [folder / name for name in _shards(index)]


def _shards(index: Path) -> list[str]:
    home = index.parents[2]
    try:
        found = read_object(index).get("weight_map")
    except (OSError, ValueError) as error:
        raise _damaged(home, f"cannot read {shown(index)}: {reason(error)}") from error
    names = found.values() if isinstance(found, dict) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise _damaged(home, f"{shown(index)} has no weight_map that names files")
    return sorted(set(names))


def _check_weights(folder: Path, home: Path) -> None:
    """Refuse a file cut short, as a disk that was full or a power failure leaves it."""
    from tfx.core.weights import open_weights

    try:
        for file in _weight_files(folder):
            open_weights(file)
    except WeightsError as fault:
        raise _damaged(home, str(fault)) from fault


def _damaged(home: Path, fault: str) -> HubError:
    return HubError(f"{fault}; delete the folder {shown(home)} and try again")


# ---- the download --------------------------------------------------------------------------------


class _Unreachable(HubError):
    """The Hub may not be asked, or gives no answer of use: the cache must do."""


def _downloaded(repo: str, revision: str | None, home: Path, note: Callable[[str], None]) -> Path:
    sizes, commit = _listing(repo, revision)
    folder = home / "snapshots" / commit

    def fetch(name: str, revision: str = commit) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(repo, name, revision=revision, etag_timeout=SECONDS))
        except Exception as error:  # of two HTTP libraries, and RuntimeError from a third
            raise _broken_off(error, repo, revision) from error

    names = _needed(repo, sizes, fetch)
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        size = sum(sizes[name] for name in missing) / 1e6
        files = "1 file" if len(missing) == 1 else f"{len(missing)} files"
        note(f"downloading {repo} from the Hub: {size:,.1f} MB in {files}, to {shown(_cache())}")
    for name in names:
        fetch(name)
    fetch("config.json", revision or "main")  # it is there: this writes down the revision's commit
    return folder


def _listing(repo: str, revision: str | None) -> tuple[dict[str, int], str]:
    """The files of a repository, with their sizes in bytes, and the commit they belong to."""
    from huggingface_hub import HfApi, constants

    absent = f"{repo} is not in the cache {shown(_cache())}"
    forbidden = "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "TFX_OFFLINE"
    if constants.HF_HUB_OFFLINE or is_offline():
        raise _Unreachable(f"{absent} and {forbidden} forbids a download: unset it once")
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=SECONDS)
        return {file.rfilename: file.size or 0 for file in info.siblings}, info.sha
    except Exception as error:  # of one HTTP library or another, by the version installed
        raise _refused(error, repo, revision) or _Unreachable(
            f"{absent} and the Hub ({constants.ENDPOINT}) cannot be reached: {_cause(error)}; "
            "connect once"
        ) from error


def _needed(repo: str, sizes: dict[str, int], fetch: Callable[[str], Path]) -> list[str]:
    """The names of the files to have, in the order to fetch them."""
    if _WEIGHTS in sizes:
        weights = [_WEIGHTS]
    elif _INDEX in sizes:
        weights = [_INDEX, *_shards(fetch(_INDEX))]
    else:
        raise HubError(_no_safetensors(repo, sizes))
    small = (*_SETTINGS, *(name for form in _TOKENIZERS for name in form), *_TOKENIZER_SETTINGS)
    required = ["config.json", *weights]
    if absent := [name for name in required if name not in sizes]:
        raise HubError(f"{repo} has no {in_words(absent)}; choose another repository")
    return [name for name in small if name in sizes] + weights


def _no_safetensors(repo: str, sizes: dict[str, int]) -> str:
    if not any(re.fullmatch(r"pytorch_model.*\.bin", name) for name in sizes):
        return f"{repo} has no {_WEIGHTS} and no index of shards; choose another repository"
    return (
        f"{repo} has only pytorch_model.bin, and tfx reads no pickle; where transformers is "
        f'installed, AutoModelForCausalLM.from_pretrained("{repo}").save_pretrained("DIR") makes '
        "safetensors of it, and the same with AutoTokenizer adds the tokenizer; "
        "then take the folder DIR in its place"
    )


# ---- what went wrong -----------------------------------------------------------------------------


def _refused(error: Exception, repo: str, revision: str | None) -> HubError | None:
    """The Hub's refusal in our words; None where it did not refuse, but failed."""
    from huggingface_hub import errors

    login = "set HF_TOKEN or run 'hf auth login'"
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{repo} is gated: ask for access on its page on the Hub, then {login}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"there is no repository {repo} on the Hub, or you may not see it: "
            f"check the name; if it is private, {login}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"{repo} has no revision {revision!r}; expected a branch, a tag or a full commit hash"
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return HubError(f"the Hub denies access to {repo} ({_cause(error)}); {login}")
    return None


def _broken_off(error: Exception, repo: str, revision: str | None) -> HubError:
    """Why a file did not come. What has come is kept, and a part of a file is not."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return HubError(
            f"cannot write {repo} to the cache {shown(_cache())}: {error.strerror}; "
            "make room there, or set HF_HOME to another folder"
        )
    return _refused(error, repo, revision) or HubError(
        f"the download of {repo} broke off ({_cause(error)}); try again: whole files are kept"
    )


def _cause(error: Any) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return f"{error.response.status_code} {error.response.reason_phrase}"
    return one_line(error)
