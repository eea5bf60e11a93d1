"""Runs how_it_works.py: as the site shows it, and as the tests want it."""

import base64
import hashlib
import logging
import os
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOURCE = HERE / "how_it_works.py"
TRAINING = "training"  # the tag of cells that take a minute or more
TIMEOUT = 1200  # seconds a cell may take
TRANSPORT = "tcp" if os.name == "nt" else "ipc"  # tcp is warned of: others could listen


def read_notebook() -> NotebookNode:
    return jupytext.read(SOURCE)


def has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def run_notebook(notebook: NotebookNode, folder: Path = ROOT) -> NotebookNode:
    """The notebook with what its cells print and show. An error in a cell raises
    `nbclient.exceptions.CellExecutionError`."""
    logging.getLogger("traitlets").setLevel(logging.WARNING)  # else it says that it begins
    config = Config({"KernelManager": {"transport": TRANSPORT}})
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=TIMEOUT, resources=place, config=config).execute()
    return notebook


def executed_page(folder: Path) -> str:
    """The notebook as a page of the site; the training is not run. `folder` keeps the page and its
    pictures, which are made again when a file beside this one has changed."""
    sources = [path.read_bytes() for path in sorted(HERE.glob("*.py"))]
    page = folder / f"{hashlib.sha256(b''.join(sources)).hexdigest()[:16]}.md"
    if not page.exists():
        folder.mkdir(parents=True, exist_ok=True)
        notebook = read_notebook()
        cells = notebook.cells
        notebook.cells = [cell for cell in cells if not has_tag(cell, TRAINING)]
        run_notebook(notebook)
        notebook.cells = cells
        page.write_text(as_markdown(notebook, folder), encoding="utf-8")
    return page.read_text(encoding="utf-8")


def as_markdown(notebook: NotebookNode, folder: Path) -> str:
    """Text, code, and what the code printed and showed; pictures become files in the folder."""
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        language = "bash" if cell.source.startswith("!") else "python"
        parts.append(f"```{language}\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            if output.get("name") == "stdout":
                parts.append(f"```text\n{output.text.rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                path = folder / f"{number}.png"
                path.write_bytes(base64.b64decode(output.data["image/png"]))
                parts.append(f"![what the sliders move](/_build/notebook/{path.name})")
    return "\n\n".join(parts) + "\n"
