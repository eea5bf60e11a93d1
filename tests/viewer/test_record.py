"""Recordings: what they hold, and what cannot be recorded."""

import base64
import re

import msgspec
import pytest
import zstandard

from checkpoints import save_checkpoint
from machine.cli import run
from tests.evaluation.test_export import flat_model
from viewer import record


@pytest.fixture
def checkpoint(scene, tmp_path):
    """A model whose every view is a plane, trained on `scene/train`."""
    return saved(tmp_path / "model.pth", scene)


def saved(path, scene, **changes):
    options = {"data_root": str(scene / "train")}
    save_checkpoint(path, {"model": flat_model(**changes).state_dict(), "options": options})
    return path


def command(out, *words) -> None:
    run(record.PROG, record.main, ["--out", str(out), "--device", "cpu", *map(str, words)])


def nodes(recording: bytes) -> set[str]:
    """The names of what a .viser file shows: after the size, compressed, come the length of the
    messages and the messages."""
    content = zstandard.ZstdDecompressor().decompressobj().decompress(recording[8:])
    length = int.from_bytes(content[:8], "little")
    messages = msgspec.msgpack.decode(content[8 : 8 + length])["messages"]
    names = {message["name"] for _, message in messages if "props" in message}
    return {name.split("/")[2] for name in names if name.count("/") > 1}


def test_a_recording_holds_what_it_is_asked_for(checkpoint, tmp_path, capsys):
    for show in (["features"], ["surface", "cameras"]):
        out = tmp_path / f"{show[0]}.viser"
        command(out, "--checkpoint", checkpoint, "--show", *show)
        assert nodes(out.read_bytes()) == set(show)
        assert f"{out}: {' and '.join(show)}" in capsys.readouterr().out


def test_a_page_is_complete(checkpoint, tmp_path):
    """It holds the recording, and loads neither scripts nor styles."""
    out = tmp_path / "scene.html"
    command(out, "--checkpoint", checkpoint)
    page = out.read_text()
    embedded = re.search(r'__VISER_EMBED_DATA__="([^"]+)"', page)[1]
    assert nodes(base64.b64decode(embedded)) == {"surface", "cameras"}
    assert not re.search(r'<(script|link)[^>]+(src|href)="(?!data:)', page)


@pytest.mark.parametrize("show", ["surface", "features"])
def test_a_model_without_depth_is_one_line(show, scene, tmp_path, capsys):
    path = saved(tmp_path / "model.pth", scene, no_occlusion_net=True)
    out = tmp_path / "scene.html"
    with pytest.raises(SystemExit) as end:
        command(out, "--checkpoint", path, "--show", show)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"viewer.record: error: {path}: learned no depth")
    assert not out.exists()


@pytest.mark.parametrize(("name", "problem"), [("a.ply", "written as"), ("a.html", "exists")])
def test_where_no_recording_can_be_written_is_one_line(name, problem, checkpoint, tmp_path, capsys):
    out = tmp_path / name
    out.write_text("mine")
    with pytest.raises(SystemExit) as end:
        command(out, "--checkpoint", checkpoint)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"viewer.record: error: --out {out}: ")
    assert problem in line
    assert out.read_text() == "mine"
