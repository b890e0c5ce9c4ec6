"""Every error tfx raises on purpose, and the exit code the command line gives it.

A message is one line: what was given, what was expected, what to do. Anything that is
not a `TfxError` is a bug in tfx or in a plugin, and keeps its traceback.
"""

from __future__ import annotations


class TfxError(Exception):
    """Base of all expected failures; the command line prints it as one line."""

    exit_code = 1


class UsageError(TfxError):
    """A flag or argument is wrong: unknown name, bad value, two that exclude each other."""

    exit_code = 2


class BackendError(TfxError):
    """A backend is unknown, not installed, cannot run here, or speaks another interface."""


class BackendMismatch(TfxError):
    """Tensors of two backends met in one operation; `x.to(backend)` is the only way across."""


class DTypeError(TfxError, TypeError):
    """An operation got a dtype it does not take, or two dtypes where one was expected."""


class ShapeError(TfxError, ValueError):
    """Shapes, axes or indices that do not fit the operation."""


class GradientError(TfxError):
    """A gradient was asked for where none can be given."""


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
