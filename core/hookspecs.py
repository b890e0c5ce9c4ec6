"""The hooks a plugin may implement.

A plugin is a module that a distribution names in the entry-point group `tfx`:

    [project.entry-points.tfx]
    acme = "tfx_acme.plugin"

The module marks its hooks with `hookimpl`. It should import nothing heavy: a hook hands over
descriptors with import strings, and what they point to is imported when somebody asks for it.
Names that begin with `tfx_` are for hooks alone, so that a misspelled one is noticed.

A command of its own takes no hook. It stands by name in a second group, so that `tfx --help` can
list it, and `tfx greet` find it, with nothing else of any plugin imported:

    [project.entry-points."tfx.commands"]
    greet = "tfx_acme.commands:greet"

What is named is a function. Typer makes arguments and options of its annotated parameters and the
help of its docstring. `tfx_acme/commands.py`:

    import typer

    from tfx.core.errors import TfxError

    def greet(name: str, times: int = 1) -> None:
        '''Say hello to NAME.'''
        if times > 100:
            raise TfxError(f"--times {times} is more than anybody listens to; 100 will do")
        for _ in range(times):
            typer.echo(f"Hello, {name}!")

A `TfxError` ends it with one line and an exit code, as it does our own commands. Where tfx has a
command of that name, tfx's runs; where two plugins have one, neither does.
"""

from __future__ import annotations

from pluggy import HookimplMarker, HookspecMarker

from tfx.core.specs import BackendSpec, KernelSpec, LoggerSpec, ModelSpec

hookspec = HookspecMarker("tfx")
hookimpl = HookimplMarker("tfx")


@hookspec
def tfx_backends() -> list[BackendSpec]:
    """The backends this plugin offers; an empty list when there are none.

    Example, `tfx_acme/plugin.py`:

        from tfx.core.hookspecs import hookimpl
        from tfx.core.specs import BackendSpec

        @hookimpl
        def tfx_backends():
            return [
                BackendSpec(
                    name="acme",
                    target="tfx_acme.backend:AcmeBackend",
                    summary="Acme arrays on the Acme accelerator",
                    probe="tfx_acme.probe:probe",
                    install_hint="pip install acme-arrays",
                    api=1,
                )
            ]
    """
    return []


@hookspec
def tfx_models() -> list[ModelSpec]:
    """The models this plugin offers; an empty list when there are none.

    Example, `tfx_acme/plugin.py`:

        from tfx.core.hookspecs import hookimpl
        from tfx.core.specs import ModelSpec

        @hookimpl
        def tfx_models():
            return [
                ModelSpec(
                    name="acmegpt",
                    target="tfx_acme.recipe:AcmeGPT",
                    summary="a transformer in the style of Acme",
                    api=1,
                )
            ]
    """
    return []


@hookspec
def tfx_kernels() -> list[KernelSpec]:
    """The kernels this plugin offers to backends; an empty list when there are none.

    Example, `tfx_acme/plugin.py`:

        from tfx.core.hookspecs import hookimpl
        from tfx.core.specs import KernelSpec

        @hookimpl
        def tfx_kernels():
            return [
                KernelSpec(
                    backend="acme",
                    op="rms_norm",
                    target="tfx_acme.kernels:RMS_NORM",
                    summary="RMSNorm in one pass",
                    api=1,
                )
            ]
    """
    return []


@hookspec
def tfx_loggers() -> list[LoggerSpec]:
    """The loggers of training runs this plugin offers; an empty list when there are none.

    Example, `tfx_acme/logger.py`:

        from tfx.core.callbacks import Callback

        class AcmeLog(Callback):
            def on_log(self, args, state, control, *, logs, **kwargs):
                print(state.global_step, logs["loss"])

    `tfx_acme/plugin.py`:

        from tfx.core.hookspecs import hookimpl
        from tfx.core.specs import LoggerSpec

        @hookimpl
        def tfx_loggers():
            return [
                LoggerSpec(
                    name="acme",
                    target="tfx_acme.logger:AcmeLog",
                    summary="the metrics on the Acme dashboard",
                    api=1,
                )
            ]
    """
    return []
