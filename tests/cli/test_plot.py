"""`tfx train --plot`: a picture of the loss, or an error before the training."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tfx.cli.plot import (
    check_drawable,
    draw_losses,
    draw_points,
    draw_thetas,
    picture_name,
    smoothed,
    with_plot_value,
)
from tfx.core.errors import DataError, TfxError

PNG = b"\x89PNG"


def test_alone_it_draws_into_the_folder_of_the_run(invoke: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = invoke("train", "--plot", "echo", "--out", "here", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["plot"] == str(Path("here/loss.png"))
    assert (tmp_path / "here/loss.png").read_bytes().startswith(PNG)
    assert done.stderr.splitlines()[-1] == "loss curve: here/loss.png"


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", PNG), ("b.svg", b"<?xml"), ("c.pdf", b"%PDF"), ("D.PNG", PNG), ("e.Svg", b"<?xml")],
)
def test_with_a_name(invoke: Any, tmp_path: Path, name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    assert invoke("train", "echo", "--plot", name).exit_code == 0
    assert (tmp_path / name).read_bytes().startswith(start)


def test_it_may_stand_in_the_configuration_file(invoke: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    config = tmp_path / "run.toml"
    config.write_text("plot = true")
    invoke("train", "echo", "--config", str(config), "--out", "here")
    assert (tmp_path / "here/loss.png").exists()
    config.write_text("plot = false")
    invoke("train", "echo", "--config", str(config), "--out", "there")
    assert not (tmp_path / "there/loss.png").exists()


def test_without_matplotlib_nothing_is_trained(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = invoke("train", "echo", "--plot", "--out", "here")
    assert done.exit_code == 1
    assert done.stderr == "tfx: --plot needs matplotlib: pip install 'tfx-lm[plot]'\n"
    assert not (tmp_path / "here").exists()


def test_a_missing_folder_is_found_before_the_training(invoke: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = invoke("train", "echo", "--plot", "no/loss.png", "--out", "here")
    assert done.exit_code == 2
    assert done.stderr == "tfx: --plot no/loss.png: there is no folder no\n"
    assert not (tmp_path / "here").exists()


def test_another_kind_of_picture_is_refused_by_its_suffix(invoke: Any, tmp_path: Path) -> None:
    done = invoke("train", "echo", "--plot", "x.jpg")
    assert done.exit_code == 2
    assert "expected a name that ends in .png, .svg, .pdf, got 'x.jpg'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "in_the_way"),
    [
        (["--plot", "x.png", "--out", "here"], "x.png"),
        (["--plot", "--out", "here"], "here/loss.png"),
        (["--plot", "--resume", "here"], "here/loss.png"),
    ],
)
def test_a_target_that_cannot_be_written_is_found_before_the_training(
    invoke: Any, tmp_path: Path, args: list[str], in_the_way: str
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / in_the_way).mkdir(parents=True)
    done = invoke("train", "echo", *args)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == f"tfx: --plot: cannot write {in_the_way}: it is not a regular file\n"


def test_a_target_that_the_system_refuses(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / f"{'x' * 300}.png"
    with pytest.raises(TfxError, match=r"^--plot: cannot write .*: File name too long$"):
        check_drawable(str(picture), None)


def test_looking_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    old = tmp_path / "old.png"
    old.write_bytes(b"a picture by Matplotlib")
    for picture in (old, tmp_path / "new.png"):
        check_drawable(str(picture), None)
    check_drawable("", tmp_path / "not there yet")
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert old.read_bytes() == b"a picture by Matplotlib"


def test_a_picture_that_fails_does_not_take_the_result_along(
    invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.png")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    done = invoke("train", "echo", "--plot", "x.png", "--json", "--out", "here")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["out"] == "here"
    assert done.stderr.splitlines()[-1] == "tfx: x.png: No space left on device"


def test_a_picture_is_the_old_one_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def torn(figure: Any, file: Path, **_: object) -> None:
        Path(file).write_bytes(b"half of")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", torn)
    picture = tmp_path / "x.png"
    picture.write_bytes(b"a picture by Matplotlib")
    for draw in (
        lambda: draw_points([{"step": 1, "loss": 2.0}], picture, "title"),
        lambda: draw_thetas([("prompt", "accepted", [0.75, 0.8])], picture),
    ):
        with pytest.raises(OSError, match="No space left"):
            draw()
        assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
            ("x.png", b"a picture by Matplotlib")
        ]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ([], []),
        (["--plot"], ["--plot="]),
        (["--plot", "echo"], ["--plot=", "echo"]),
        (["--plot", "--json"], ["--plot=", "--json"]),
        (["--plot", "a/b.svg", "echo"], ["--plot", "a/b.svg", "echo"]),
        (["--plot=x.pdf"], ["--plot=x.pdf"]),
        (["--plot", "x.jpg", "echo"], ["--plot", "x.jpg", "echo"]),
        (["--plot", "a/X.PNG"], ["--plot", "a/X.PNG"]),
        (["--plot", "gpt-1.5"], ["--plot=", "gpt-1.5"]),
    ],
)
def test_only_the_name_of_a_file_belongs_to_the_flag(typed: list[str], read: list[str]) -> None:
    assert with_plot_value(typed) == read


def test_the_value() -> None:
    assert [picture_name(text) for text in ("", "true", "false", "a.svg")] == [
        "",
        "",
        None,
        "a.svg",
    ]


def test_smoothing_is_a_mean_of_neighbours() -> None:
    losses = [float(i % 7) for i in range(200)]
    smooth = smoothed(losses)
    assert len(smooth) == 200
    for i in (0, 1, 4, 5, 75, 198, 199):
        near = losses[max(0, i - 4) : i + 5]
        assert smooth[i] == pytest.approx(sum(near) / len(near))


def test_steps_without_a_loss_are_left_out_and_few_steps_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    metrics = tmp_path / "metrics.jsonl"
    for lines in ([], ['{"step": 1, "loss": 3.0}', '{"step": 1, "eval_loss": 2.0}']):
        metrics.write_text("\n".join(lines))
        draw_losses(metrics, tmp_path / "loss.png", "echo on chip")
        assert (tmp_path / "loss.png").read_bytes().startswith(PNG)


def test_unreadable_metrics(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics.jsonl").write_text("{")
    with pytest.raises(DataError, match="cannot draw the loss curve"):
        draw_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", "echo on chip")


def test_validation_is_drawn_where_it_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    metrics, picture = tmp_path / "metrics.jsonl", tmp_path / "loss.svg"
    metrics.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0, "val_loss": 2.5}\n')
    draw_losses(metrics, picture, "echo on chip")
    assert "<!-- validation -->" in picture.read_text()
    metrics.write_text('{"step": 1, "loss": 3.0}\n')
    draw_losses(metrics, picture, "echo on chip")
    assert "<!-- validation -->" not in picture.read_text()
