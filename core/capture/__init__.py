"""Capture and replay: `jit`, and what it is made of.

A function runs once under a `Recorder`; the `Program` it came to is simplified, laid out over
memory that is settled beforehand where the backend plans its calls, and replayed.
"""

from tfx.core.capture.captured import Captured, eager, jit

__all__ = ["Captured", "eager", "jit"]
