"""Every error tfx raises on purpose, and the exit code the command line gives it.

A message is one line: what was given, what was expected, what to do. Anything that is
not a `TfxError` is a bug in tfx or in a plugin, and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Callable


class TfxError(Exception):
    """Base of all expected failures; the command line prints it as one line."""

    exit_code = 1


class UsageError(TfxError):
    """A flag or argument is wrong: unknown name, bad value, two that exclude each other."""

    exit_code = 2


class OptionError(UsageError):
    """Options will not do; whoever took them from elsewhere can have them spelled as there.

    >>> fault = OptionError("{top_k} {value!r}: expected a whole number", value=0.5)
    >>> print(fault)
    top_k 0.5: expected a whole number
    >>> print(fault.spelled(lambda name: "--" + name.replace("_", "-")))
    --top-k 0.5: expected a whole number

    Args:
        message: a format string, with the name of each option and of each value in braces.
        values: by name; every other name in the message is that of an option.
    """

    def __init__(self, message: str, **values: object) -> None:
        self._message = message
        self._values = values
        super().__init__(self._told(str))

    def spelled(self, spelling: Callable[[str], str]) -> UsageError:
        """The same with every option called what `spelling` makes of its name."""
        return UsageError(self._told(spelling))

    def _told(self, spelling: Callable[[str], str]) -> str:
        return self._message.format_map(_Words(self._values, spelling))


class _Words(dict[str, object]):
    """Values by name, and of every other name its spelling."""

    def __init__(self, values: dict[str, object], spelling: Callable[[str], str]) -> None:
        super().__init__(values)
        self._spelling = spelling

    def __missing__(self, name: str) -> str:
        return self._spelling(name)


class BackendError(TfxError):
    """A backend is unknown, not installed, cannot run here, or speaks another interface."""


class MissingPrimitive(BackendError, NotImplementedError):
    """A backend that is not finished was asked for something that it does not implement yet."""


class BackendMismatch(TfxError):
    """Tensors of two backends met in one operation; `x.to(backend)` is the only way across."""


class DTypeError(TfxError, TypeError):
    """An operation got a dtype it does not take, or two dtypes where one was expected."""


class ShapeError(TfxError, ValueError):
    """Shapes, axes or indices that do not fit the operation."""


class GradientError(TfxError):
    """A gradient was asked for where none can be given."""


class CaptureError(TfxError):
    """A function cannot be captured, or its replay is not what the function computes."""


class OnlyOnTape(GradientError):
    """The library's own autograd cannot follow; tfx's tape can, and does where that is allowed."""


class OutOfMemory(TfxError, MemoryError):
    """A backend has no room for an array; says how much was asked for and how much there is."""


class DLPackError(TfxError, BufferError):
    """An array cannot be handed from one library to another as it is; says why and what to do."""


class PluginError(TfxError):
    """A plugin is broken; the message names its distribution and the cure."""


class WeightsError(TfxError):
    """A weight file is not what it claims; names the file, the tensor and the fault."""


class CheckpointError(TfxError):
    """A checkpoint is missing, incomplete, damaged, or of another model."""


class DataError(TfxError):
    """Training or evaluation data is missing, empty, or cannot be used."""


class HubError(TfxError):
    """A checkpoint cannot be had from the Hugging Face Hub or its cache; says what to do."""


class TokenizerError(TfxError, ValueError):
    """A tokenizer file is not what it claims, or a text or an id is nothing the tokenizer knows."""


class NonFiniteError(TfxError):
    """The loss or its gradient became infinite or NaN; the parameters were left as they were."""

    exit_code = 3
