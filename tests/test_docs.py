"""The documentation: what it says to paste runs, its links lead somewhere, its messages are the
program's.

A block behind the line `<!-- runs -->` runs as it stands, but smaller; one behind `<!-- runs long
-->` in `make test-long`. All other commands are only parsed.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from checkpoints import save_checkpoint
from data_util import load_image
from docs import conf, figures
from docs.commands import all_commands, command_modules, escape, parser_of, usage
from tests.conftest import SMALL, hemisphere_poses, write_scene
from tests.helpers import ENVIRONMENT, ROOT
from util import InputError

TEXTS = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
RUNS = re.compile(r"^<!-- (runs|runs long) -->\n+```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(
    r"^```(?:bash)?\n.*?^```|(?:^ {4}[^\n]*\n)+|`python [^`]+`", re.MULTILINE | re.DOTALL
)
COMMAND = re.compile(r"(?:^|[\s`])python (?:-m ([\w.]+)|(\w+\.py)) ([^`…;#]+)")
SMALLER = [
    (r"--size \w+", " ".join(SMALL)),
    (r"--max_steps \d+", "--max_steps 2"),
    (r"--validate_every \d+", ""),
    (r"--train_views \d+", "--train_views 6"),
    (r"--test_views \d+", "--test_views 2"),
    (r"(scenes\.path \w+)", r"\1 --frames 3"),
    # structure from motion has tests of its own
    (
        r"python colmap_wrapper.py --img_dir photos --trgt_dir (\w+)",
        r"python -m scenes.render --sidelength 64 --train_views 6 --test_views 2 --out \1",
    ),
]
PACKAGES = [
    path.parent.relative_to(ROOT)
    for path in sorted(ROOT.glob("[!.]*/**/__init__.py"))
    if ROOT / "tests" not in path.parents
]
MODULES = {
    "run_deepvoxels.py": "run_deepvoxels",
    "colmap_wrapper.py": "scenes.photos",
    "viewer": "viewer.__main__",
}


def blocks():
    for name, text in TEXTS.items():
        for number, (kind, block) in enumerate(RUNS.findall(text)):
            yield pytest.param(
                block,
                id=f"{name}-{number}",
                marks=[pytest.mark.long] if kind == "runs long" else [],
            )


@pytest.mark.parametrize("block", list(blocks()))
def test_what_a_page_says_to_paste_runs(block, tmp_path):
    for pattern, smaller in SMALLER:
        block = re.sub(pattern, smaller, block)
    for entry in ROOT.iterdir():  # a checkout with room for what the commands write
        if not entry.name.startswith(".") and entry.name != "demo":
            (tmp_path / entry.name).symlink_to(entry)
    environment = {
        **ENVIRONMENT,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    ended = subprocess.run(
        ["bash", "-e", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def commands():
    """The commands of the project in all blocks and inline code of a page: the page, the module,
    its arguments."""
    known = set(command_modules(["*.py", "*/*.py"])) | set(MODULES)
    for name, text in TEXTS.items():
        for block in BLOCK.findall(text):
            lines = (
                " ".join(block.split())
                if block.startswith("`python")
                else re.sub(r"\\\n", " ", block)
            )
            for line in lines.splitlines():
                for module, script, arguments in COMMAND.findall(line):
                    if (
                        (module or script) in known
                        and "--help" not in arguments
                        and "$" not in arguments
                    ):
                        yield (
                            name,
                            MODULES.get(module or script, module),
                            re.sub(r"\bN\b", "1", arguments),
                        )


@pytest.mark.parametrize("page, module, arguments", list(commands()))
def test_every_command_on_a_page_has_flags_that_exist(page, module, arguments):
    _, rest = parser_of(module).parse_known_args(shlex.split(arguments))
    if module.startswith("experiments"):  # these hand on what they do not know
        _, rest = parser_of("run_deepvoxels").parse_known_args(rest)
    assert not rest


def test_the_pictures_of_how_it_works_can_be_made_from_a_checkpoint(trained, tmp_path):
    _, logs, _ = trained
    figures.main(["--checkpoint", "latest", "--logging_root", str(logs), "--out", str(tmp_path)])
    shown = set(re.findall(r"figures/(\w+\.png)", TEXTS["docs/how_it_works.md"]))
    assert {path.name for path in tmp_path.iterdir()} == shown
    assert all(load_image(path).std() > 10 for path in tmp_path.iterdir())
    with pytest.raises(InputError, match="--view 8: .* has 8 views"):
        figures.main(
            [
                "--checkpoint",
                "latest",
                "--logging_root",
                str(logs),
                "--out",
                str(tmp_path),
                "--view",
                "8",
            ]
        )


@pytest.fixture
def followed(trained, tmp_path):
    """`follow(view, **options)` follows a view of an RGBA scene, whose test view shows a disc in
    the middle and its depth, through the model of `trained`, as if it had been trained there with
    other options."""
    scene = tmp_path / "scene"
    image = np.full((64, 64, 4), 255, np.uint8)
    distance = np.hypot(*(np.mgrid[:64, :64] - 31.5))
    image[distance > 20, 3] = 0
    for split, views in [("train", 8), ("test", 1)]:
        write_scene(scene / split, views)
        for path in (scene / split / "rgb").iterdir():
            imageio.imwrite(path, image)
    (scene / "test" / "depth").mkdir()
    np.savez(
        scene / "test" / "depth" / "0.npz",
        depth=np.where(distance > 20, np.inf, 1 + 0.01 * distance),
    )

    def follow(view, with_test=True, **options) -> figures.Passage:
        if not with_test:
            shutil.rmtree(scene / "test")
        checkpoint = {
            **trained[2],
            "options": {**trained[2]["options"], "data_root": str(scene / "train"), **options},
        }
        save_checkpoint(tmp_path / "model.pth", checkpoint)
        with torch.inference_mode():
            return figures.follow_views(tmp_path / "model.pth", None, view)

    return follow


def test_the_panels_of_a_render_show_the_same_part_of_the_view(followed):
    figure = figures.draw_render(followed(0))
    panels = [panel.images[0].get_array() for panel in figure.axes]
    assert {panel.shape for panel in panels} == {(54, 54, 3)}
    columns = np.flatnonzero((panels[3] < 255).any(axis=(0, 2)))
    assert columns[0] + columns[-1] == 53  # the disc is in the middle
    assert 20 < len(columns) < 54


def test_a_ray_is_drawn_where_it_goes_through_the_view(followed):
    """That of the map's middle pixel goes through the middle of the image."""
    photo = figures.draw_ray(followed(0)).axes[0]
    left, right, bottom, top = photo.images[0].get_extent()
    line, dot = photo.lines
    middle = pytest.approx([(left + right) / 2, (bottom + top) / 2])
    assert [dot.get_xdata()[0], line.get_ydata()[0]] == middle
    assert [dot.get_xdata()[0], dot.get_ydata()[0]] == middle


def test_the_pictures_show_views_as_the_training_saw_them(followed):
    assert followed(0).truth[0, :, 8, 8].tolist() == [0.5] * 3
    passage = followed(1, with_test=False, background="black", sampling_pattern="skip_1")
    assert passage.truth[0, :, 8, 8].tolist() == passage.source[0, :, 8, 8].tolist() == [-0.5] * 3
    kept = torch.from_numpy(hemisphere_poses(8)[::2]).float()  # without view 1
    assert (passage.source_pose - kept).abs().amax(dim=(1, 2)).min() < 1e-6


def test_the_site_brings_its_scripts_along():
    assert conf.MATHJAX.is_file()
    assert str(conf.MATHJAX) in conf.html_static_path
    assert conf.mathjax_path == conf.MATHJAX.name  # no address


def test_lines_of_the_site_do_not_break_within_a_flag():
    """And a figure leads to its file, to be seen in full."""
    body = (
        '<span class="pre">--size</span> <span class="pre">a--b</span> <img alt="" src="a.png" />'
    )
    context = {"body": body}
    conf.mark_up_page(None, "page", "page.html", context, None)
    assert context["body"] == (
        '<span class="pre flag">--size</span> <span class="pre">a--b</span> '
        '<a href="a.png"><img alt="" src="a.png" /></a>'
    )
    assert escape("*see* --size") == "\\*see\\* `--size`"


def test_the_page_of_commands_has_every_flag():
    page = all_commands()
    for module in command_modules(
        ["run_deepvoxels.py", "scenes/*.py", "experiments/*.py", "viewer/__main__.py"]
    ):
        for action in parser_of(module)._actions:
            assert action.dest == "help" or f"\n`{usage(action)}`\n: " in page


def anchor(heading: str) -> str:
    """The anchor that GitHub and MyST give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_and_headings_that_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith(("http:", "https:")):
            continue
        path, _, heading = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(anchor, headings), target


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_a_package_names_its_modules(package):
    file = ROOT / package / "__init__.py"
    described = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    modules = {path.stem for path in file.parent.glob("*.py")} - {"__init__"}
    unnamed = [name for name in modules if not re.search(rf"`{name}`|\b{name}:", described)]
    assert not unnamed


def test_troubleshooting_explains_messages_that_the_program_can_give():
    sources = [
        path
        for path in [*ROOT.glob("*.py"), *ROOT.glob("[!.]*/**/*.py")]
        if ROOT / "tests" not in path.parents
    ]
    said = "\n".join(
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    rows = re.findall(r"^\| (.*?) \|", TEXTS["docs/troubleshooting.md"], re.MULTILINE)
    quoted = [
        part
        for row in rows
        for quote in re.findall(r"`([^`]+)`", row)
        for part in re.split("[…]", quote)
        if " " in part.strip() and not re.search(r"--?\w", part)
    ]
    assert len(quoted) > 20
    for part in quoted:
        assert part.strip(" :,") in said, part
