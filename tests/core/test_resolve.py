"""What the user typed becomes a backend or a model, or a message that says what to do."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.errors import BackendError, PluginError, TfxError, UsageError
from tfx.core.fused import composed
from tfx.core.nn import rms_norm
from tfx.core.plugins import PluginHost
from tfx.core.recipe import Evaluable
from tfx.core.resolve import open_backend, open_model, ready_here

if TYPE_CHECKING:
    from conftest import Shelf

PLUGIN = """
import numpy
from tfx.core.array_backend import ArrayBackend
from tfx.core.backend import Backend

class Opens(ArrayBackend):
    def __init__(self, device):
        super().__init__(numpy)
        self.name, self.device = {name!r}, device or "its default"
    def to_numpy(self, x): return numpy.array(x)
    def scatter_add(self, x, indices, updates, *, axis): raise NotImplementedError

def probe():
    return Probe({probe})

@hookimpl
def tfx_backends():
    return [BackendSpec(name={name!r}, target={target!r}, summary="", {fields})]
"""


def add_backend(
    shelf: Shelf,
    name: str,
    *,
    probe: str = "True",
    fields: str = "",
    code: str = "",
    version: str = "1.0",
    target: str = "Opens",
) -> None:
    """Put a distribution `tfx-NAME` on the shelf that offers the backend NAME."""
    fields = f"probe='tfx_{name}:probe', {fields}"
    target = f"tfx_{name}:{target}"
    plugin = PLUGIN.format(name=name, probe=probe, target=target, fields=fields)
    shelf.add(f"tfx-{name}", plugin + code, version=version)


@pytest.fixture
def host(shelf: Shelf) -> PluginHost:
    """As on a machine without a graphics card: numpy and torch ready, cupy not."""
    add_backend(shelf, "numpy", fields="priority=10")
    add_backend(shelf, "torch", probe="True, ('cpu',)", fields="priority=5")
    driver = "False, version='cupy-cuda12x 14.2.0', reason='no CUDA driver found'"
    add_backend(shelf, "cupy", probe=driver, fields="priority=20")
    return shelf.host()


def refusal(
    kind: type[TfxError], host: PluginHost, name: str | None, device: str | None = None
) -> str:
    """The message with which opening a backend is refused: one line, of exactly `kind`."""
    with pytest.raises(TfxError) as caught:
        open_backend(host, name, device)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestNamed:
    def test_opens_with_its_own_default(self, host: PluginHost) -> None:
        opened = open_backend(host, "torch")
        assert isinstance(opened.backend, Backend)
        assert (opened.backend.name, opened.backend.device) == ("torch", "its default")
        assert opened.chosen_because is None

    @pytest.mark.parametrize(
        ("name", "device"),
        [("duo:x:1", None), ("duo", "x:1"), ("duo:x:1", "x:1")],
    )
    def test_a_colon_and_device_are_one(self, shelf: Shelf, name: str, device: str | None) -> None:
        add_backend(shelf, "duo", probe="True, ('x:0', 'x:1')")
        assert open_backend(shelf.host(), name, device).backend.device == "x:1"

    def test_two_devices(self, host: PluginHost) -> None:
        assert refusal(UsageError, host, "torch:cpu", "cuda:0") == (
            "backend 'torch:cpu' and device 'cuda:0' name two devices; leave one out"
        )

    def test_a_colon_and_nothing(self, host: PluginHost) -> None:
        assert refusal(UsageError, host, "torch:") == (
            "backend 'torch:' has no device after its colon; write 'torch'"
        )

    def test_a_device_it_does_not_have(self, shelf: Shelf) -> None:
        add_backend(shelf, "torch", probe="True, ('cuda:0', 'cpu')")
        assert refusal(BackendError, shelf.host(), "torch", "cuda:1") == (
            "backend 'torch' has no device 'cuda:1' here. Did you mean 'cuda:0'?"
            " It has: cuda:0, cpu."
        )

    def test_a_device_where_there_is_no_choice(self, host: PluginHost) -> None:
        assert refusal(BackendError, host, "numpy", "cuda:0") == (
            "backend 'numpy' has no device 'cuda:0' here. It has: cpu."
        )

    @pytest.mark.parametrize(("name", "device"), [("numpy:cpu", None), ("numpy", "cpu")])
    def test_the_processor_may_be_named_where_it_need_not_be(
        self, host: PluginHost, name: str, device: str | None
    ) -> None:
        assert open_backend(host, name, device).backend.device == "its default"

    def test_unknown(self, host: PluginHost) -> None:
        assert refusal(UsageError, host, "cuppy") == (
            "no backend named 'cuppy'. Did you mean 'cupy'? Ready here: numpy, torch:cpu."
        )

    def test_unknown_and_like_nothing(self, host: PluginHost) -> None:
        assert refusal(UsageError, host, "tpu:0") == (
            "no backend named 'tpu'. Ready here: numpy, torch:cpu."
        )

    def test_an_empty_name_is_not_auto(self, host: PluginHost) -> None:
        assert refusal(UsageError, host, "").startswith("no backend named ''.")

    def test_in_capitals(self, host: PluginHost) -> None:
        assert "Did you mean 'torch'?" in refusal(UsageError, host, "TORCH")

    def test_installed_but_cannot_run(self, host: PluginHost) -> None:
        assert refusal(BackendError, host, "cupy") == (
            "backend 'cupy' is installed (cupy-cuda12x 14.2.0) but cannot run here:"
            " no CUDA driver found. Ready here: numpy, torch:cpu."
        )

    def test_not_installed(self, shelf: Shelf) -> None:
        hint = "install_hint='pip install tfx-lm[torch]'"
        add_backend(shelf, "torch", probe="False, installed=False", fields=hint)
        assert refusal(BackendError, shelf.host(), "torch") == (
            "backend 'torch' is not installed. Ready here: none."
            " To install it: pip install tfx-lm[torch]"
        )

    def test_not_installed_with_a_reason_and_no_hint(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme", probe="False, installed=False, reason='acme is for Mars.'")
        assert refusal(BackendError, shelf.host(), "acme") == (
            "backend 'acme' is not installed: acme is for Mars. Ready here: none."
        )

    def test_the_probe_fails(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme", code="def probe(): raise OSError('no bus')")
        assert refusal(BackendError, shelf.host(), "acme") == (
            "backend 'acme' is installed but cannot run here: the probe of tfx-acme 1.0 failed"
            " (OSError: no bus). Ready here: none."
        )

    NEWER = (
        "backend 'acme' speaks interface 2; this tfx speaks 1."
        " Upgrade tfx-lm, or: pip install 'tfx-acme<2'"
    )

    def test_it_speaks_a_newer_interface(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme", fields="api=2", version="2.3")
        assert refusal(BackendError, shelf.host(), "acme") == self.NEWER

    def test_its_class_speaks_a_newer_interface(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme", version="2.3", code="Opens.api = 2")
        assert refusal(BackendError, shelf.host(), "acme") == self.NEWER

    OLDER = (
        "backend 'acme' speaks interface 0; the oldest that this tfx speaks is 1."
        " Upgrade it: pip install -U tfx-acme"
    )

    def test_it_speaks_an_interface_of_long_ago(self, shelf: Shelf) -> None:
        untouched = "def probe(): raise SystemExit(1)"
        add_backend(shelf, "acme", fields="api=0", code=untouched)
        assert refusal(BackendError, shelf.host(), "acme") == self.OLDER

    def test_its_class_speaks_an_interface_of_long_ago(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme", code="Opens.api = 0")
        assert refusal(BackendError, shelf.host(), "acme") == self.OLDER

    def test_the_oldest_interface_is_opened(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As it will be once there are two that are spoken."""
        monkeypatch.setattr("tfx.core.plugins.OLDEST", -1)
        add_backend(shelf, "acme", fields="api=-1", code="Opens.api = -1")
        assert open_backend(shelf.host(), "acme").backend.api == -1

    @pytest.mark.parametrize(
        ("code", "fault", "cause"),
        [
            (
                "class Opens:\n    def __init__(self, device): raise OSError('no bus')",
                "backend 'acme' of tfx-acme 1.0 cannot be opened (OSError: no bus)",
                OSError,
            ),
            (
                "def Opens(device): raise SystemExit(1)",
                "backend 'acme' of tfx-acme 1.0 cannot be opened (SystemExit: 1)",
                SystemExit,
            ),
            (
                "def Opens(): pass",
                "backend 'acme' of tfx-acme 1.0 cannot be opened"
                " (TypeError: Opens() takes 0 positional arguments but 1 was given)",
                TypeError,
            ),
            (
                "del Opens",
                "backend 'acme' of tfx-acme 1.0 cannot be opened"
                " (AttributeError: module 'tfx_acme' has no attribute 'Opens')",
                AttributeError,
            ),
            (
                "def Opens(device): return {}",
                "backend 'acme' of tfx-acme 1.0: tfx_acme:Opens gave a dict,"
                " not a tfx.core.backend.Backend",
                None,
            ),
            (
                "def Opens(device): return Backend",
                "backend 'acme' of tfx-acme 1.0: tfx_acme:Opens gave the class Backend,"
                " not a tfx.core.backend.Backend",
                None,
            ),
        ],
    )
    def test_a_stranger_fails_when_opened(
        self, shelf: Shelf, code: str, fault: str, cause: type[BaseException] | None
    ) -> None:
        add_backend(shelf, "acme", code=code)
        host = shelf.host()
        message = refusal(PluginError, host, "acme")
        assert message == f"{fault}. Upgrade it, or: pip uninstall tfx-acme"
        with pytest.raises(PluginError) as caught:
            open_backend(host, "acme")
        assert type(caught.value.__cause__) is (cause or type(None))

    def test_a_target_that_cannot_be_imported(self, shelf: Shelf) -> None:
        shelf.offer("tfx-acme", "BackendSpec('acme', 'tfx_acme_core:Acme', '')")
        assert refusal(PluginError, shelf.host(), "acme") == (
            "backend 'acme' of tfx-acme 1.0 cannot be opened"
            " (ModuleNotFoundError: No module named 'tfx_acme_core')."
            " Upgrade it, or: pip uninstall tfx-acme"
        )

    def test_a_target_that_needs_what_is_not_installed(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme", code="def Opens(device): import acme_arrays")
        assert refusal(PluginError, shelf.host(), "acme") == (
            "backend 'acme' of tfx-acme 1.0 cannot be opened"
            " (ModuleNotFoundError: No module named 'acme_arrays')."
            " It needs 'acme_arrays'; reinstall it with what it needs:"
            " pip install --force-reinstall tfx-acme"
        )

    @pytest.mark.parametrize(
        ("code", "lacks"),
        [
            ("Opens.add = Backend.add", "it does not implement add"),
            (
                "Opens.dtype = Backend.dtype; Opens.add = Backend.add; Opens.pad = Backend.pad",
                "it does not implement dtype, add and pad",
            ),
            ("Opens.dtypes = frozenset()", "its dtypes are empty"),
            (
                "Opens.__init__ = lambda self, device: setattr(self, 'name', 'acme')",
                "its __init__ does not call that of its base class",
            ),
            (
                "class Opens(Opens):\n"
                "    def __init__(self, device):\n"
                "        super().__init__(device)\n"
                "        self.name = 'Acme'",
                "its name is 'Acme', not 'acme'",
            ),
            (
                "Opens.__init__ = lambda self, device: None",
                "its __init__ does not call that of its base class; its name is None, not 'acme'",
            ),
        ],
    )
    def test_a_backend_that_is_not_whole(self, shelf: Shelf, code: str, lacks: str) -> None:
        add_backend(shelf, "acme", code=code)
        assert refusal(PluginError, shelf.host(), "acme") == (
            "backend 'acme' of tfx-acme 1.0: tfx_acme:Opens gave an Opens that is not a whole"
            f" backend: {lacks}. Upgrade it, or: pip uninstall tfx-acme"
        )

    def test_what_has_a_default_may_be_left_out(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme", code="Opens.random_bits = Backend.random_bits")
        assert open_backend(shelf.host(), "acme").backend.name == "acme"

    def test_an_expected_failure_keeps_its_own_words(self, shelf: Shelf) -> None:
        raising = "raise BackendError('the accelerator is busy; try later')"
        code = f"from tfx.core.errors import BackendError\ndef Opens(device): {raising}"
        add_backend(shelf, "acme", code=code)
        message = refusal(BackendError, shelf.host(), "acme")
        assert message == "the accelerator is busy; try later"


class TestAuto:
    @pytest.mark.parametrize("name", [None, "auto"])
    def test_takes_the_ready_one_of_highest_priority(
        self, host: PluginHost, name: str | None
    ) -> None:
        opened = open_backend(host, name)
        assert opened.backend.name == "numpy"
        assert opened.chosen_because == (
            "backend: numpy (the one of highest priority ready here; --backend chooses)"
        )

    def test_takes_the_best_device_and_says_so(self, shelf: Shelf) -> None:
        add_backend(shelf, "torch", probe="True, ('cuda:0', 'cpu')")
        opened = open_backend(shelf.host())
        assert opened.backend.device == "cuda:0"
        assert opened.chosen_because == (
            "backend: torch:cuda:0 (the only one ready here; --backend chooses)"
        )

    def test_an_accelerator_goes_before_the_processor(self, shelf: Shelf) -> None:
        add_backend(shelf, "numpy", fields="priority=10")
        add_backend(shelf, "acme", probe="True, ('npu:0', 'cpu')")
        opened = open_backend(shelf.host())
        assert (opened.backend.name, opened.backend.device) == ("acme", "npu:0")
        assert opened.chosen_because == (
            "backend: acme:npu:0 (the only accelerator ready here; --backend chooses)"
        )

    def test_between_accelerators_priority_decides(self, shelf: Shelf) -> None:
        add_backend(shelf, "numpy", fields="priority=10")
        add_backend(shelf, "acme", probe="True, ('npu:0',)")
        add_backend(shelf, "torch", probe="True, ('cuda:0', 'cpu')", fields="priority=5")
        assert open_backend(shelf.host()).chosen_because == (
            "backend: torch:cuda:0 (the accelerator of highest priority ready here;"
            " --backend chooses)"
        )

    def test_an_accelerator_is_not_preferred_for_its_processor(self, shelf: Shelf) -> None:
        add_backend(shelf, "numpy", fields="priority=10")
        add_backend(shelf, "torch", probe="True, ('cuda:0', 'cpu')", fields="priority=5")
        opened = open_backend(shelf.host(), None, "cpu")
        assert opened.backend.name == "numpy"
        assert "accelerator" not in str(opened.chosen_because)

    def test_a_tie_goes_to_the_alphabet(self, shelf: Shelf) -> None:
        for name in ("zeta", "alpha", "mid"):
            add_backend(shelf, name)
        assert open_backend(shelf.host()).backend.name == "alpha"

    @pytest.mark.parametrize(("name", "device"), [(None, "cpu"), ("auto:cpu", None)])
    def test_with_a_device_takes_one_that_has_it(
        self, host: PluginHost, name: str | None, device: str | None
    ) -> None:
        opened = open_backend(host, name, device)
        assert opened.backend.name == "numpy"
        assert opened.chosen_because == (
            "backend: numpy (the one of highest priority ready here that has cpu;"
            " --backend chooses)"
        )

    def test_with_a_device_that_only_one_has(self, shelf: Shelf) -> None:
        add_backend(shelf, "numpy", fields="priority=10")
        add_backend(shelf, "torch", probe="True, ('cuda:0', 'cpu')")
        opened = open_backend(shelf.host(), None, "cuda:0")
        assert opened.backend.device == "cuda:0"
        assert opened.chosen_because == (
            "backend: torch:cuda:0 (the only one ready here that has cuda:0; --backend chooses)"
        )

    def test_with_a_device_that_none_has(self, host: PluginHost) -> None:
        assert refusal(BackendError, host, None, "cuda:0") == (
            "no backend here has a device 'cuda:0'. Ready here: numpy, torch:cpu."
        )

    def test_with_none_ready(self, shelf: Shelf) -> None:
        add_backend(shelf, "cupy", probe="False, reason='no CUDA driver found'")
        add_backend(shelf, "new", fields="api=3")
        add_backend(shelf, "old", fields="api=0")
        add_backend(shelf, "shy", probe="False")
        for device in (None, "cuda:0"):
            assert refusal(BackendError, shelf.host(), None, device) == (
                "no backend can run here: cupy (no CUDA driver found),"
                " new (it speaks interface 3; this tfx speaks 1), old (it speaks interface 0; the"
                " oldest that this tfx speaks is 1), shy (not ready)"
            )

    def test_with_none_on_offer(self, shelf: Shelf) -> None:
        assert refusal(BackendError, shelf.host(), None) == (
            "no backend is on offer; `tfx plugins` says why"
        )

    def test_a_broken_plugin_is_passed_over_in_silence(self, shelf: Shelf) -> None:
        add_backend(shelf, "good")
        shelf.add("tfx-acme", "import acme_arrays")
        assert open_backend(shelf.host()).backend.name == "good"

    def test_a_choice_that_fails_is_not_replaced(self, shelf: Shelf) -> None:
        add_backend(shelf, "good")
        add_backend(shelf, "best", fields="priority=1", code="def Opens(device): raise OSError")
        assert "backend 'best' of tfx-best 1.0 cannot be opened" in refusal(
            PluginError, shelf.host(), None
        )


class TestWhatAPluginAtFaultOwns:
    BROKEN = (
        "plugin 'acme' of tfx-acme 1.0 is broken: it cannot be imported (ModuleNotFoundError:"
        " No module named 'acme_arrays'). It needs 'acme_arrays'; reinstall it with what it needs:"
        " pip install --force-reinstall tfx-acme"
    )

    @pytest.mark.parametrize("asked", ["acme", "acme:0", "tfx-acme"])
    def test_a_broken_one_is_named(self, shelf: Shelf, asked: str) -> None:
        shelf.add("tfx-acme", "import acme_arrays")
        host = shelf.host()
        assert refusal(PluginError, host, asked) == self.BROKEN
        with pytest.raises(PluginError) as caught:
            open_backend(host, asked)
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)

    def test_its_distribution_is_enough(self, shelf: Shelf) -> None:
        shelf.add("tfx-acme", "import acme_arrays", entry_points={"fast": "tfx_acme"})
        assert "plugin 'fast' of tfx-acme 1.0" in refusal(PluginError, shelf.host(), "acme")

    def test_for_a_model_too(self, shelf: Shelf) -> None:
        shelf.add("tfx-acme", "import acme_arrays")
        with pytest.raises(PluginError, match=re.escape(self.BROKEN)):
            open_model(shelf.host(), "acme")

    def test_whoever_asks_for_something_else_does_not_hear_of_it(self, shelf: Shelf) -> None:
        shelf.add("tfx-acme", "import acme_arrays")
        assert refusal(UsageError, shelf.host(), "other") == (
            "no backend named 'other'. Ready here: none."
        )

    def test_disabled(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme")
        assert refusal(UsageError, shelf.host(TFX_DISABLE_PLUGINS="acme"), "acme") == (
            "plugin 'acme' of tfx-acme 1.0 is disabled: TFX_DISABLE_PLUGINS names it."
            " Take it out of there"
        )

    def test_not_loaded(self, shelf: Shelf) -> None:
        add_backend(shelf, "acme")
        assert refusal(UsageError, shelf.host(TFX_LOAD_PLUGINS=""), "acme") == (
            "plugin 'acme' of tfx-acme 1.0 is not loaded: TFX_LOAD_PLUGINS leaves it out."
            " Add it there"
        )


class TestModel:
    RECIPE = """
class Recipe:
    name = "acmegpt"
    def train(self, settings, backend, report): return {}
    def run(self, settings, backend, report): return {}
    def evaluate(self, settings, backend, report): return {}
"""

    def add(self, shelf: Shelf, code: str, fields: str = "") -> None:
        spec = f"ModelSpec('acmegpt', 'tfx_acme:Recipe', '', {fields})"
        hook = f"@hookimpl\ndef tfx_models(): return [{spec}]\n"
        shelf.add("tfx-acme", hook + code)

    @pytest.mark.parametrize("judges", [True, False])
    def test_opens(self, shelf: Shelf, judges: bool) -> None:
        self.add(shelf, self.RECIPE if judges else self.RECIPE.replace("evaluate", "_evaluate"))
        recipe = open_model(shelf.host(), "acmegpt")
        assert recipe.name == "acmegpt" and isinstance(recipe, Evaluable) is judges

    def test_unknown(self, shelf: Shelf) -> None:
        self.add(shelf, self.RECIPE)
        shelf.offer("tfx-b", "ModelSpec('microgpt', 'a:b', '')", hook="tfx_models")
        with pytest.raises(UsageError) as caught:
            open_model(shelf.host(), "micrgpt")
        assert str(caught.value) == (
            "no model named 'micrgpt'. Did you mean 'microgpt'? Models here: acmegpt, microgpt."
        )

    def test_unknown_where_there_are_none(self, shelf: Shelf) -> None:
        with pytest.raises(UsageError, match=r"no model named 'gpt2'\. Models here: none\.$"):
            open_model(shelf.host(), "gpt2")

    @pytest.mark.parametrize(
        ("code", "fields", "message"),
        [
            (
                RECIPE,
                "api=2",
                "model 'acmegpt' speaks interface 2; this tfx speaks 1."
                " Upgrade tfx-lm, or: pip install 'tfx-acme<1'",
            ),
            (
                RECIPE,
                "api=0",
                "model 'acmegpt' speaks interface 0; the oldest that this tfx speaks is 1."
                " Upgrade it: pip install -U tfx-acme",
            ),
            (
                "import acme_core",
                "",
                "plugin 'acme' of tfx-acme 1.0 is broken: it cannot be imported",
            ),
            (
                "def Recipe(): raise OSError('full')",
                "",
                "model 'acmegpt' of tfx-acme 1.0 cannot be opened (OSError: full)."
                " Upgrade it, or: pip uninstall tfx-acme",
            ),
            (
                "class Recipe:\n    def train(self): pass",
                "",
                "model 'acmegpt' of tfx-acme 1.0: tfx_acme:Recipe gave a Recipe without run."
                " Upgrade it, or: pip uninstall tfx-acme",
            ),
        ],
    )
    def test_a_broken_one(self, shelf: Shelf, code: str, fields: str, message: str) -> None:
        self.add(shelf, code, fields)
        asked = "acme" if "import" in code else "acmegpt"
        with pytest.raises(PluginError, match=f"^{re.escape(message)}"):
            open_model(shelf.host(), asked)


def test_ready_here_spells_out_devices(shelf: Shelf) -> None:
    add_backend(shelf, "torch", probe="True, ('cuda:0', 'cpu')")
    add_backend(shelf, "numpy")
    add_backend(shelf, "cupy", probe="False")
    assert ready_here(shelf.host()) == ["numpy", "torch:cuda:0", "torch:cpu"]
    for spelling in ready_here(shelf.host()):
        assert open_backend(shelf.host(), spelling).backend.name in spelling


def test_our_own_backend_for_the_processor_may_be_asked_for_by_device() -> None:
    host = PluginHost(environ={"TFX_LOAD_PLUGINS": ""})
    for name, device in [("numpy:cpu", None), ("numpy", "cpu"), ("auto", "cpu"), ("numpy", None)]:
        opened = open_backend(host, name, device)
        assert (opened.backend.name, opened.backend.device) == ("numpy", "cpu")
    assert "numpy" in ready_here(host)


class TestKernels:
    CODE = """
from tfx.core.backend import Fused

def forward(B, x, weight, **params):
    return B.mul(x, 0), None

RMS_NORM = Fused("rms_norm", forward)
"""

    def offer(self, shelf: Shelf, code: str = CODE, fields: str = "", op: str = "rms_norm") -> None:
        """Put a distribution on the shelf that offers one kernel to the backend `theirs`."""
        spec = f"KernelSpec('theirs', {op!r}, 'tfx_fast_kernels:RMS_NORM', '', {fields})"
        hook = (
            f"from tfx.core.specs import KernelSpec\n@hookimpl\ndef tfx_kernels(): return [{spec}]"
        )
        shelf.add("tfx-fast", hook)
        (shelf.folder / "tfx_fast_kernels.py").write_text(code)

    def test_a_strangers_kernel_runs_in_somebody_elses_backend(self, shelf: Shelf) -> None:
        add_backend(shelf, "theirs")
        self.offer(shelf)
        opened = open_backend(shelf.host(), "theirs")
        assert opened.left_out == ()
        x = tensor([1.0, 2.0], opened.backend)
        assert rms_norm(x).tolist() == [0.0, 0.0]
        with composed():
            assert rms_norm(x).tolist() != [0.0, 0.0]

    def test_it_takes_the_place_of_the_backends_own(self, shelf: Shelf) -> None:
        init = "def __init__(self, d): super().__init__(d); self.fused['rms_norm'] = 1"
        own = f"class Opens(Opens):\n    {init}"
        add_backend(shelf, "theirs", code=own)
        self.offer(shelf)
        fused = open_backend(shelf.host(), "theirs").backend.fused
        assert fused["rms_norm"] is sys.modules["tfx_fast_kernels"].RMS_NORM

    def test_it_is_imported_with_its_backend_only(self, shelf: Shelf) -> None:
        add_backend(shelf, "theirs")
        add_backend(shelf, "other")
        self.offer(shelf)
        host = shelf.host()
        assert list(host.kernels()) == ["theirs:rms_norm"]
        assert open_backend(host, "other").backend.fused == {}
        assert "tfx_fast_kernels" not in sys.modules

    @pytest.mark.parametrize(
        ("code", "fields", "op", "fault"),
        [
            (
                "raise OSError('no bus')",
                "",
                "rms_norm",
                "kernel 'theirs:rms_norm' of tfx-fast 1.0 cannot be loaded (OSError: no bus)."
                " Upgrade it, or: pip uninstall tfx-fast",
            ),
            (
                "import tritonic",
                "",
                "rms_norm",
                "kernel 'theirs:rms_norm' of tfx-fast 1.0 cannot be loaded (ModuleNotFoundError:"
                " No module named 'tritonic'). It needs 'tritonic'; reinstall it with what it"
                " needs: pip install --force-reinstall tfx-fast",
            ),
            (
                "RMS_NORM = None",
                "",
                "rms_norm",
                "kernel 'theirs:rms_norm' of tfx-fast 1.0: tfx_fast_kernels:RMS_NORM gave None,"
                " not a tfx.core.backend.Fused. Upgrade it, or: pip uninstall tfx-fast",
            ),
            (
                CODE,
                "",
                "layer_norm",
                "kernel 'theirs:layer_norm' of tfx-fast 1.0: tfx_fast_kernels:RMS_NORM gave"
                " a kernel for 'rms_norm'. Upgrade it, or: pip uninstall tfx-fast",
            ),
            (
                CODE.replace("rms_norm", "rms_nrom"),
                "",
                "rms_nrom",
                "kernel 'theirs:rms_nrom' of tfx-fast 1.0: tfx_fast_kernels:RMS_NORM gave a kernel"
                " for 'rms_nrom', which is no fused op."
                " Upgrade it, or: pip uninstall tfx-fast",
            ),
            (
                CODE,
                "api=2",
                "rms_norm",
                "kernel 'theirs:rms_norm' speaks interface 2; this tfx speaks 1."
                " Upgrade tfx-lm, or: pip install 'tfx-fast<1'",
            ),
            (
                CODE,
                "api=0",
                "rms_norm",
                "kernel 'theirs:rms_norm' speaks interface 0; the oldest that this tfx speaks"
                " is 1. Upgrade it: pip install -U tfx-fast",
            ),
        ],
    )
    def test_one_at_fault_is_left_out_by_name(
        self, shelf: Shelf, code: str, fields: str, op: str, fault: str
    ) -> None:
        add_backend(shelf, "theirs")
        self.offer(shelf, code, fields, op)
        opened = open_backend(shelf.host(), "theirs")
        assert opened.left_out == (fault,)
        assert opened.backend.fused == {}

    def test_where_plugins_are_strict_it_is_an_error(self, shelf: Shelf) -> None:
        add_backend(shelf, "theirs")
        self.offer(shelf, "raise OSError('no bus')")
        host = shelf.host(TFX_STRICT_PLUGINS="1")
        assert "cannot be loaded (OSError: no bus)" in refusal(PluginError, host, "theirs")
