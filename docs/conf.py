"""Sphinx's settings: `make docs` builds the site into docs/_build, and fails on any warning. The
site needs no network."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from docs.commands import all_commands  # noqa: E402
from docs.notebooks.execute import executed_page  # noqa: E402
from docs.recordings import make_recordings  # noqa: E402

project = "DeepVoxels"
author = copyright = "The DeepVoxels developers"  # noqa: A001
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
NOTEBOOK = "notebooks/how_it_works"
html_title = "DeepVoxels"
html_theme = "furo"
html_copy_source = False
# MathJax with its fonts, in one file, which the site carries with it
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax/tex-svg.js"
html_static_path = ["_static", str(MATHJAX)]
mathjax_path = MATHJAX.name
html_css_files = ["site.css"]
smartquotes = False  # it would turn --flags into dashes
default_role = "code"  # docstrings mark code with single backticks

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90

nitpicky = True
# Types of other packages: they are named, not linked, so that the build needs no network.
nitpick_ignore_regex = [
    ("py:.*", r"(jaxtyping|torch|numpy|np|nn|argparse|pathlib|collections)(\..*)?"),
    ("py:.*", r"(Float|Bool|Int|UInt8)\[.*"),
    ("py:.*", r"(Tensor|ndarray|Path|Namespace|Module|optional)"),
]


def fill_in(app, docname: str, source: list[str]) -> None:
    """Puts the help of every command in the place that commands.md keeps for it, and the executed
    notebook in the place of the page that leads to it."""
    if docname == NOTEBOOK:
        source[0] = executed_page(Path(app.srcdir) / "_build" / "notebook")
    if docname == "commands":
        source[0] = source[0].replace("<!-- every command -->", all_commands())


def pages_to_read_again(*_) -> list[str]:
    """The pages whose source is not all of what they show."""
    return ["commands", NOTEBOOK]


def leave_out_fields(app, what: str, name: str, member, skip: bool, options) -> bool | None:
    """Leaves out the fields of named tuples, which the signature shows."""
    return True if type(member).__name__ == "_tuplegetter" else None


def mark_up_page(app, page: str, template: str, context: dict, doctree) -> None:
    """Marks flags, so that lines do not break within one, and links figures to their files, to be
    seen in full on a small screen."""
    if "body" in context:
        body = context["body"].replace('<span class="pre">--', '<span class="pre flag">--')
        context["body"] = re.sub(r'<img [^>]*src="([^"]+)"[^>]*>', r'<a href="\1">\g<0></a>', body)


def setup(app) -> None:
    app.connect("env-get-outdated", pages_to_read_again)
    app.connect("source-read", fill_in)
    app.connect("autodoc-skip-member", leave_out_fields)
    app.connect("html-page-context", mark_up_page)
    app.connect("build-finished", make_recordings)
