"""The plugin host: every kind of broken plugin leaves everything else working."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tfx.core.errors import PluginError
from tfx.core.installed import Installed
from tfx.core.plugin_loader import HOOKS
from tfx.core.plugins import PluginHost
from tfx.core.specs import Probe

if TYPE_CHECKING:
    from conftest import Shelf

    from tfx.core.plugins import PluginInfo

GOOD = """
@hookimpl
def tfx_backends():
    return [BackendSpec(name="good", target="tfx_good:Good", summary="works")]

@hookimpl
def tfx_models():
    return [ModelSpec(name="goodgpt", target="tfx_good:GoodGPT", summary="works")]
"""


def acme(name: str = "acme", **fields: object) -> str:
    """Code of a backend descriptor."""
    given = {"name": name, "target": "tfx_acme:Acme", "summary": "", **fields}
    return f"BackendSpec({', '.join(f'{key}={value!r}' for key, value in given.items())})"


def info(host: PluginHost, name: str = "acme") -> PluginInfo:
    """The one plugin called `name`."""
    (found,) = [plugin for plugin in host.plugins() if plugin.name == name]
    return found


def test_a_plugin_offers_backends_and_models(shelf: Shelf) -> None:
    shelf.add("tfx-good", GOOD, version="2.5")
    host = shelf.host()
    backend, model = host.backends()["good"], host.models()["goodgpt"]
    assert (backend.spec.target, backend.distribution, backend.version) == (
        "tfx_good:Good",
        "tfx-good",
        "2.5",
    )
    assert (model.spec.target, model.distribution) == ("tfx_good:GoodGPT", "tfx-good")
    plugin = info(host, "good")
    assert (plugin.status, plugin.offers) == ("ok", ("good", "goodgpt"))
    assert (plugin.fault, plugin.cure) == (None, None)


def test_offers_are_listed_by_name_and_plugins_by_distribution(shelf: Shelf) -> None:
    shelf.offer("tfx-z", acme("alpha"), acme("zeta"))
    shelf.offer("tfx-b", acme("mid"))
    shelf.offer("tfx-lm", acme("ours"))
    host = shelf.host()
    assert list(host.backends()) == ["alpha", "mid", "ours", "zeta"]
    assert [plugin.distribution for plugin in host.plugins()] == ["tfx-lm", "tfx-b", "tfx-z"]


THERE = "there are tfx_backends, tfx_models, tfx_kernels and tfx_loggers"

BROKEN = {
    "missing dependency": (
        "import acme_arrays",
        "it cannot be imported (ModuleNotFoundError: No module named 'acme_arrays')",
    ),
    "syntax error": ("def", "it cannot be imported (SyntaxError: invalid syntax"),
    "exit at import": ("raise SystemExit(3)", "it cannot be imported (SystemExit: 3)"),
    "message of two lines": (
        "raise OSError('no\\n  libacme.so')",
        "it cannot be imported (OSError: no libacme.so)",
    ),
    "raising hook": (
        "@hookimpl\ndef tfx_backends(): raise RuntimeError('boom')",
        "tfx_backends failed (RuntimeError: boom)",
    ),
    "exit in a hook": (
        "@hookimpl\ndef tfx_models(): raise SystemExit",
        "tfx_models failed (SystemExit)",
    ),
    "misspelled hook": (
        "@hookimpl\ndef tfx_backend(): return []",
        f"no hook is called tfx_backend; {THERE}",
    ),
    "unknown hook": (
        "@hookimpl\ndef tfx_cakes(): return []",
        f"no hook is called tfx_cakes; {THERE}",
    ),
    "misspelled by specname": (
        "@hookimpl(specname='tfx_modles')\ndef models(): return []",
        f"no hook is called tfx_modles; {THERE}",
    ),
    "unmarked hook": (
        "def tfx_backends(): return []",
        "tfx_backends is not marked with @hookimpl",
    ),
    "no hook": ("", f"it has no hook; {THERE}"),
    "hook with an argument": (
        "@hookimpl\ndef tfx_backends(device): return []",
        "a hook does not fit (PluginValidationError: Plugin",
    ),
    "no return": (
        "@hookimpl\ndef tfx_backends(): pass",
        "tfx_backends returned None, not a list of BackendSpec",
    ),
    "one instead of a list": (
        f"@hookimpl\ndef tfx_backends(): return {acme()}",
        "tfx_backends returned a BackendSpec, not a list of BackendSpec",
    ),
    "a model among backends": (
        "@hookimpl\ndef tfx_backends(): return [ModelSpec('m', 'a:b', '')]",
        "tfx_backends returned a ModelSpec in its list, where BackendSpec belongs",
    ),
    "a field of the wrong type": (
        f"@hookimpl\ndef tfx_backends(): return [{acme(priority='high')}]",
        "tfx_backends returned a BackendSpec whose priority is a str",
    ),
    "a field we do not know": (
        f"@hookimpl\ndef tfx_backends(): return [{acme(colour='red')}]",
        "tfx_backends failed (TypeError: BackendSpec.__init__() got an unexpected",
    ),
    "a name with a colon": (
        f"@hookimpl\ndef tfx_backends(): return [{acme('acme:0')}]",
        "tfx_backends returned the name 'acme:0'; names are lower case letters, digits",
    ),
    "the name auto": (
        f"@hookimpl\ndef tfx_backends(): return [{acme('auto')}]",
        "tfx_backends returned the name 'auto'",
    ),
    "a kernel for no backend": (
        "from tfx.core.specs import KernelSpec\n"
        "@hookimpl\ndef tfx_kernels(): return [KernelSpec('', 'softmax', 'a:b', '')]",
        "tfx_kernels returned the name ''; names are lower case letters, digits",
    ),
    "a target without an attribute": (
        f"@hookimpl\ndef tfx_backends(): return [{acme(target='tfx_acme')}]",
        "tfx_backends returned the target 'tfx_acme'; write 'package.module:attribute'",
    ),
}


@pytest.mark.parametrize(("code", "fault"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_is_named_and_the_rest_work(shelf: Shelf, code: str, fault: str) -> None:
    shelf.add("tfx-acme", code, version="0.3")
    shelf.add("tfx-good", GOOD)
    host = shelf.host()
    assert list(host.backends()) == ["good"]
    assert list(host.models()) == ["goodgpt"]
    assert info(host, "good").status == "ok"
    broken = info(host)
    assert (broken.status, broken.distribution, broken.version) == ("broken", "tfx-acme", "0.3")
    assert broken.offers == ()
    assert broken.fault is not None
    assert broken.fault.startswith(fault)
    assert "\n" not in broken.fault
    assert broken.cure == (
        "It needs 'acme_arrays'; reinstall it with what it needs:"
        " pip install --force-reinstall tfx-acme"
        if "acme_arrays" in fault
        else "Upgrade it, or: pip uninstall tfx-acme"
    )


@pytest.mark.parametrize("code", ["import tfx_acme.parts", "import json.acme", "import tfx_acme2"])
def test_a_module_that_no_reinstalling_brings(shelf: Shelf, code: str) -> None:
    shelf.add("tfx-acme", code, entry_points={"acme": "tfx_acme2" if "2" in code else "tfx_acme"})
    assert info(shelf.host()).cure == "Upgrade it, or: pip uninstall tfx-acme"


def test_an_entry_point_may_name_an_object_but_must_find_it(shelf: Shelf) -> None:
    method = f"    @hookimpl\n    def tfx_backends(self): return [{acme()}]"
    code = f"class Hooks:\n{method}\nhooks = Hooks()"
    points = {"acme": "tfx_acme:hooks", "gone": "tfx_acme:nowhere", "garbled": "tfx acme!"}
    shelf.add("tfx-acme", code, entry_points=points)
    host = shelf.host()
    assert info(host).offers == ("acme",)
    assert "has no attribute 'nowhere'" in str(info(host, "gone").fault)
    assert "it cannot be imported" in str(info(host, "garbled").fault)


def test_what_is_sound_in_a_broken_plugin_stands(shelf: Shelf) -> None:
    misspelled = "\n@hookimpl\ndef tfx_modles(): return []\n"
    code = f"@hookimpl\ndef tfx_backends(): return [{acme('Bad Name')}, {acme()}]" + misspelled
    shelf.add("tfx-acme", code)
    host = shelf.host()
    assert list(host.backends()) == ["acme"]
    assert (info(host).status, info(host).offers) == ("broken", ("acme",))
    assert "no hook is called tfx_modles" in str(info(host).fault)
    assert "'Bad Name'" in str(info(host).fault)


def test_a_hook_of_a_later_tfx_may_be_declared_optional(shelf: Shelf) -> None:
    code = "@hookimpl(optionalhook=True)\ndef tfx_loggers(): return []"
    shelf.add("tfx-acme", code)
    assert info(shelf.host()).status == "ok"


def test_an_interrupt_while_loading_is_the_users(shelf: Shelf) -> None:
    shelf.add("tfx-acme", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        shelf.host().plugins()


def test_a_distribution_without_its_metadata_is_reported(shelf: Shelf) -> None:
    shelf.add("tfx-acme", GOOD)
    (shelf.info("tfx-acme") / "METADATA").unlink()
    shelf.add("tfx-good", GOOD)
    host = shelf.host()
    assert list(host.backends()) == ["good"]
    damaged = info(host, "unknown")
    assert damaged.status == "broken"
    assert damaged.fault == f"a package in {shelf.folder} has lost its name or version"
    assert damaged.cure == "Remove its .dist-info folder"


def test_garbled_entry_points_are_reported(shelf: Shelf) -> None:
    shelf.add("tfx-acme", GOOD)
    (shelf.info("tfx-acme") / "entry_points.txt").write_text("[tfx]\nno equals sign\n")
    shelf.add("tfx-good", GOOD)
    host = shelf.host()
    assert list(host.backends()) == ["good"]
    garbled = info(host, "tfx-acme")
    assert garbled.status == "broken"
    assert str(garbled.fault).startswith("its entry_points.txt cannot be read")


def test_another_tools_unreadable_entry_points_are_none_of_ours(shelf: Shelf) -> None:
    shelf.add("other-tool", GOOD)
    (shelf.info("other-tool") / "entry_points.txt").write_bytes(b"\xff\xfe[x]")
    assert shelf.host().plugins() == []


def test_a_distribution_found_twice_counts_once(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add("tfx-good", GOOD, version="2.0")
    shadowed = type(shelf)(tmp_path / "shadowed")
    shadowed.folder.mkdir()
    shadowed.add("tfx-good", GOOD, version="1.0")
    host = PluginHost(distributions(path=[str(shelf.folder), str(shadowed.folder)]), {})
    assert [(plugin.version, plugin.status) for plugin in host.plugins()] == [("2.0", "ok")]


class TestDuplicateNames:
    def test_ours_win(self, shelf: Shelf) -> None:
        shelf.offer("a-first", acme("numpy"), acme("other"))
        shelf.offer("tfx-lm", acme("numpy"), version="0.1.0")
        host = shelf.host()
        assert host.backends()["numpy"].distribution == "tfx-lm"
        assert host.backends()["other"].distribution == "a-first"
        loser = info(host, "a-first")
        assert (loser.status, loser.offers) == ("broken", ("other",))
        assert loser.fault == "backend 'numpy' already comes from tfx-lm 0.1.0"
        assert loser.cure == "Upgrade it, or: pip uninstall a-first"
        assert info(host, "lm").status == "ok"

    def test_between_others_the_first_by_distribution_wins(self, shelf: Shelf) -> None:
        model = "ModelSpec('gpt', 'a:b', '')"
        shelf.offer("tfx-b", model, hook="tfx_models")
        shelf.offer("tfx-a", model, hook="tfx_models")
        host = shelf.host()
        assert host.models()["gpt"].distribution == "tfx-a"
        assert info(host, "b").fault == "model 'gpt' already comes from tfx-a 1.0"

    def test_then_the_first_by_entry_point(self, shelf: Shelf) -> None:
        code = f"@hookimpl\ndef tfx_backends(): return [{acme()}]"
        shelf.add("tfx-acme", code, entry_points={"y": "tfx_acme", "x": "tfx_acme"})
        host = shelf.host()
        assert (info(host, "x").status, info(host, "y").status) == ("ok", "broken")

    def test_a_plugin_may_not_offer_a_name_twice(self, shelf: Shelf) -> None:
        shelf.offer("tfx-acme", acme(summary="one"), acme(summary="two"))
        host = shelf.host()
        assert host.backends()["acme"].spec.summary == "one"
        assert info(host).fault == "backend 'acme' already comes from tfx-acme 1.0"

    def test_one_kernel_for_one_op_of_one_backend(self, shelf: Shelf) -> None:
        for name in ("a", "b"):
            specs = [f"KernelSpec('numpy', {op!r}, 'a:b', '')" for op in ("softmax", name)]
            code = f"@hookimpl\ndef tfx_kernels(): return [{', '.join(specs)}]"
            shelf.add(f"tfx-{name}", f"from tfx.core.specs import KernelSpec\n{code}")
        host = shelf.host()
        assert list(host.kernels()) == ["numpy:a", "numpy:b", "numpy:softmax"]
        assert info(host, "b").offers == ("numpy:b",)
        assert info(host, "b").fault == "kernel 'numpy:softmax' already comes from tfx-a 1.0"

    def test_a_backend_and_a_model_may_share_a_name(self, shelf: Shelf) -> None:
        shelf.offer("tfx-a", acme("same"))
        shelf.offer("tfx-b", "ModelSpec('same', 'a:b', '')", hook="tfx_models")
        assert [plugin.status for plugin in shelf.host().plugins()] == ["ok", "ok"]

    @pytest.mark.parametrize("api", [0, 2])
    def test_one_we_cannot_speak_with_does_not_shadow_one_we_can(
        self, shelf: Shelf, api: int
    ) -> None:
        shelf.offer("tfx-a", acme(api=api))
        shelf.offer("tfx-b", acme())
        host = shelf.host()
        assert host.backends()["acme"].distribution == "tfx-b"
        assert info(host, "b").status == "ok"


def test_an_interface_of_long_ago_is_reported_and_not_ready(shelf: Shelf) -> None:
    shelf.offer("tfx-acme", acme(api=0, probe="tfx_acme:nowhere"))
    host = shelf.host()
    older = "speaks interface 0; the oldest that this tfx speaks is 1"
    assert info(host).fault == f"backend 'acme' {older}"
    assert info(host).cure == "Upgrade it: pip install -U tfx-acme"
    assert host.probe("acme") == Probe(ready=False, reason=f"it {older}")


class TestNewerInterface:
    def test_it_is_reported_and_not_ready(self, shelf: Shelf) -> None:
        shelf.offer("tfx-acme", acme(api=2, probe="tfx_acme:nowhere"), version="2.1")
        host = shelf.host()
        newer = info(host)
        assert newer.status == "broken"
        assert newer.fault == "backend 'acme' speaks interface 2; this tfx speaks 1"
        assert newer.cure == "Upgrade tfx-lm, or: pip install 'tfx-acme<2'"
        assert host.probe("acme") == Probe(
            ready=False, reason="it speaks interface 2; this tfx speaks 1"
        )

    @pytest.mark.parametrize(
        ("version", "pip"),
        [
            ("2.0", "install 'tfx-acme<2'"),
            ("12.1rc1", "install 'tfx-acme<12'"),
            ("0.4.1", "install 'tfx-acme<0.4'"),
            ("0.0.3", "install 'tfx-acme<0.0.3'"),
            ("0.0", "uninstall tfx-acme"),
        ],
    )
    def test_the_cure_is_an_older_series(self, version: str, pip: str) -> None:
        plugin = Installed("acme", "tfx-acme", version, None)
        assert plugin.downgrade == f"Upgrade tfx-lm, or: pip {pip}"


class TestEnvironment:
    @pytest.fixture
    def three(self, shelf: Shelf) -> Shelf:
        shelf.offer("tfx-lm", acme("ours"))
        shelf.add("tfx-acme", "raise OSError")
        shelf.add("tfx-good", GOOD)
        return shelf

    def statuses(self, host: PluginHost) -> dict[str, str]:
        return {plugin.name: plugin.status for plugin in host.plugins()}

    @pytest.mark.parametrize(
        ("listed", "loaded"),
        [
            ("", set()),
            (" , ", set()),
            ("good", {"good"}),
            ("tfx-good", {"good"}),
            ("TFX_Good , acme", {"good", "acme"}),
        ],
    )
    def test_load_lists_what_others_may_bring(
        self, three: Shelf, listed: str, loaded: set[str]
    ) -> None:
        statuses = self.statuses(three.host(TFX_LOAD_PLUGINS=listed))
        assert statuses["lm"] == "ok"
        assert {name for name in ("good", "acme") if statuses[name] != "not loaded"} == loaded

    def test_a_plugin_left_out_is_not_imported(self, three: Shelf) -> None:
        host = three.host(TFX_LOAD_PLUGINS="good")
        left_out = info(host)
        assert "tfx_acme" not in sys.modules
        assert left_out.fault == "TFX_LOAD_PLUGINS leaves it out"
        assert left_out.cure == "Add it there"

    @pytest.mark.parametrize("name", ["good", "tfx-good"])
    def test_disable_wins(self, three: Shelf, name: str) -> None:
        host = three.host(TFX_LOAD_PLUGINS="good", TFX_DISABLE_PLUGINS=f"x, {name}")
        assert info(host, "good").status == "disabled"
        assert info(host, "good").fault == "TFX_DISABLE_PLUGINS names it"
        assert list(host.backends()) == ["ours"]
        assert "tfx_good" not in sys.modules

    def test_ours_can_be_disabled(self, three: Shelf) -> None:
        assert list(three.host(TFX_DISABLE_PLUGINS="tfx-lm").backends()) == ["good"]

    def test_strict_raises_every_time(self, three: Shelf) -> None:
        host = three.host(TFX_STRICT_PLUGINS="1")
        for ask in (host.plugins, host.backends, host.models):
            with pytest.raises(PluginError) as caught:
                ask()
            assert str(caught.value) == (
                "plugin 'acme' of tfx-acme 1.0 is broken: it cannot be imported (OSError)."
                " Upgrade it, or: pip uninstall tfx-acme"
            )
            assert isinstance(caught.value.__cause__, OSError)

    def test_strict_minds_only_what_is_loaded(self, three: Shelf) -> None:
        host = three.host(TFX_STRICT_PLUGINS="1", TFX_DISABLE_PLUGINS="acme")
        assert list(host.backends()) == ["good", "ours"]

    @pytest.mark.parametrize("value", ["", "0"])
    def test_strict_can_be_off(self, three: Shelf, value: str) -> None:
        assert info(three.host(TFX_STRICT_PLUGINS=value)).status == "broken"


class TestProbe:
    def probe(self, shelf: Shelf, body: str) -> Probe:
        code = f"@hookimpl\ndef tfx_backends(): return [{acme(probe='tfx_acme:probe')}]\n{body}"
        shelf.add("tfx-acme", code)
        return shelf.host().probe("acme")

    def test_its_findings(self, shelf: Shelf) -> None:
        found = self.probe(shelf, "def probe(): return Probe(True, ('x:0', 'cpu'), 'acme 3')")
        assert found == Probe(ready=True, devices=("x:0", "cpu"), version="acme 3")

    def test_without_one_a_backend_is_ready(self, shelf: Shelf) -> None:
        shelf.offer("tfx-acme", acme())
        assert shelf.host().probe("acme") == Probe(ready=True)

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("def probe(): raise OSError('no such bus')", "failed (OSError: no such bus)"),
            ("def probe(): raise SystemExit", "failed (SystemExit)"),
            ("", "failed (AttributeError: module 'tfx_acme' has no attribute 'probe')"),
            ("def probe(): pass", "returned None, not a Probe with a tuple of devices"),
            (
                "def probe(): return Probe(True, ('cpu'))",
                "returned a Probe, not a Probe with a tuple of devices",
            ),
        ],
    )
    def test_one_that_fails_makes_it_not_ready(self, shelf: Shelf, body: str, reason: str) -> None:
        expected = f"the probe of tfx-acme 1.0 {reason}"
        assert self.probe(shelf, body) == Probe(ready=False, reason=expected)

    def test_it_runs_once(self, shelf: Shelf) -> None:
        body = "calls = []\ndef probe():\n    calls.append(1)\n    return Probe(True)"
        code = f"@hookimpl\ndef tfx_backends(): return [{acme(probe='tfx_acme:probe')}]\n{body}"
        shelf.add("tfx-acme", code)
        host = shelf.host()
        assert host.probe("acme") is host.probe("acme")
        assert sys.modules["tfx_acme"].calls == [1]

    def test_of_nothing_on_offer(self, shelf: Shelf) -> None:
        with pytest.raises(KeyError):
            shelf.host().probe("acme")


class TestCommands:
    """What the host knows of commands; tests/cli/test_plugin_commands.py has what the user sees."""

    def declare(self, shelf: Shelf, distribution: str, *names: str, code: str = "") -> None:
        """Install a distribution that offers nothing but commands."""
        shelf.add(distribution, code)
        module = distribution.replace("-", "_")
        lines = [f"{name} = {module}:main\n" for name in names]
        text = "[tfx.commands]\n" + "".join(lines)
        (shelf.info(distribution) / "entry_points.txt").write_text(text)

    def test_they_are_listed_by_name_and_not_imported(self, shelf: Shelf) -> None:
        self.declare(shelf, "tfx-acme", "sing", "greet", code="raise OSError")
        self.declare(shelf, "other", "part")
        host = shelf.host()
        listed = [(name, plugin.distribution) for name, plugin in host.commands().items()]
        assert listed == [("greet", "tfx-acme"), ("part", "other"), ("sing", "tfx-acme")]
        assert host.commands()["sing"].offers == ("tfx sing",)
        assert "tfx_acme" not in sys.modules

    def test_they_stand_below_the_plugins(self, shelf: Shelf) -> None:
        self.declare(shelf, "tfx-acme", "greet")
        shelf.add("tfx-good", GOOD)
        assert [plugin.name for plugin in shelf.host().plugins()] == ["good", "greet"]

    def test_one_is_imported_when_it_is_asked_for(self, shelf: Shelf) -> None:
        self.declare(shelf, "tfx-acme", "greet", code="def main(): return 'hello'")
        assert shelf.host().command("greet")() == "hello"

    def test_there_is_no_such_command(self, shelf: Shelf) -> None:
        shelf.add("tfx-good", GOOD)
        with pytest.raises(KeyError):
            shelf.host().command("good")

    def test_names_of_our_own_are_refused(self, shelf: Shelf) -> None:
        self.declare(shelf, "tfx-acme", "train", "greet", code="def main(): ...")
        host = PluginHost(distributions(path=[str(shelf.folder)]), {}, own_commands=["train"])
        statuses = [(name, plugin.status) for name, plugin in host.commands().items()]
        assert statuses == [("greet", "ok"), ("train", "broken")]
        with pytest.raises(PluginError, match="tfx has a command of its own by that name"):
            host.command("train")

    def test_damaged_metadata_is_reported_once(self, shelf: Shelf) -> None:
        shelf.add("tfx-acme", GOOD)
        text = "[tfx]\nacme = tfx_acme\n[tfx.commands]\nno equals sign\n"
        (shelf.info("tfx-acme") / "entry_points.txt").write_text(text)
        (damaged,) = shelf.host().plugins()
        assert str(damaged.fault).startswith("its entry_points.txt cannot be read")
        assert dict(shelf.host().commands()) == {}

    def test_where_plugins_are_strict(self, shelf: Shelf) -> None:
        self.declare(shelf, "tfx-a", "greet")
        self.declare(shelf, "tfx-b", "greet")
        host = shelf.host(TFX_STRICT_PLUGINS="1")
        for ask in (host.plugins, host.commands, lambda: host.command("greet")):
            with pytest.raises(PluginError, match=r"^command 'greet' of tfx-a 1\.0 is broken: "):
                ask()
        assert dict(host.backends()) == {}


class TestHookspecs:
    def specs(self) -> dict[str, str]:
        from tfx.core import hookspecs

        return {
            name: inspect.getdoc(hook) or ""
            for name, hook in vars(hookspecs).items()
            if hasattr(hook, "tfx_spec")
        }

    def test_the_host_asks_every_hook_there_is(self) -> None:
        assert set(self.specs()) == set(HOOKS)

    @pytest.mark.parametrize("hook", HOOKS)
    def test_the_example_of_each_is_a_working_plugin(self, shelf: Shelf, hook: str) -> None:
        _, _, example = self.specs()[hook].partition("`tfx_acme/plugin.py`:\n")
        shelf.add("tfx-acme", textwrap.dedent(example))
        plugin = info(shelf.host())
        assert (plugin.status, len(plugin.offers)) == ("ok", 1)


def run(code: str, path: Path) -> str:
    """What `code` prints in a fresh interpreter that also finds the packages in `path`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TFX_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, "PYTHONPATH": str(path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_nothing_is_loaded_before_it_is_asked_for(shelf: Shelf) -> None:
    code = """
import sys
from tfx.core.plugins import PluginHost
host = PluginHost()
print([m for m in ("pluggy", "importlib.metadata", "tfx_good", "numpy") if m in sys.modules])
host.plugins()
print([m for m in ("pluggy", "importlib.metadata", "tfx_good") if m in sys.modules])
"""
    shelf.add("tfx-good", GOOD)
    assert run(code, shelf.folder).splitlines() == [
        "[]",
        "['pluggy', 'importlib.metadata', 'tfx_good']",
    ]


@pytest.mark.installed
def test_listing_imports_no_array_library(shelf: Shelf) -> None:
    code = """
import sys
from tfx.core.plugins import PluginHost
host = PluginHost()
print("good" in host.backends(), "numpy" in host.backends())
print([m for m in ("numpy", "torch", "cupy", "tfx.core.backend") if m in sys.modules])
"""
    shelf.add("tfx-good", GOOD)
    assert run(code, shelf.folder).splitlines() == ["True True", "[]"]


LOAD_TEN = """
import time
import pluggy
from importlib.metadata import distributions
from tfx.core.plugins import PluginHost

begin = time.process_time()
count = len(PluginHost(distributions(path=[{folder!r}])).backends())
print(count, time.process_time() - begin)
"""


def test_ten_plugins_load_within_30_ms(shelf: Shelf) -> None:
    """In a fresh interpreter, where the libraries that the host uses are imported already, but of
    its own modules only the first. Time of the processor, since the machine may be busy."""
    for i in range(10):
        shelf.offer(f"tfx-p{i}", acme(f"p{i}"))
    code = LOAD_TEN.format(folder=str(shelf.folder))
    runs = [run(code, shelf.folder).split() for _ in range(5)]
    assert {count for count, _ in runs} == {"10"}
    assert median(float(seconds) for _, seconds in runs) < 0.030
