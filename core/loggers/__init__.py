"""The loggers that tfx comes with; others come from plugins, by the same hook."""
