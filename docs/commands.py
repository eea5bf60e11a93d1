"""The help of every command as Markdown, from the parsers themselves: docs/commands.md shows it
(docs/conf.py)."""

import importlib
import re
from argparse import Action, HelpFormatter
from pathlib import Path
from unittest.mock import patch

from machine.cli import Parser

ROOT = Path(__file__).parent.parent
GROUPS = {  # files under each heading; those that are commands appear
    "Train and test": ["run_deepvoxels.py"],
    "Make and check scenes": ["scenes/*.py"],
    "Look and export": ["viewer/__main__.py", "evaluation/*.py"],
    "Repeat the paper's studies": ["experiments/*.py"],
    "Measure": ["benchmarks/*.py"],
    "Draw this site's pictures": ["docs/*.py"],
}


class ParserReached(BaseException):
    """Carries a command's parser out of its `main`."""


def all_commands() -> str:
    """A heading for each group, below it its commands."""
    sections = []
    for title, patterns in GROUPS.items():
        sections += [f"## {title}", *map(command_section, command_modules(patterns))]
    return "\n\n".join(sections)


def command_modules(patterns: list[str]) -> list[str]:
    """The names of the modules among some files that can be run."""
    files = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files
        if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
    ]


def parser_of(module: str) -> Parser:
    """The parser of a command. Its `main` runs up to where it parses."""

    def stop(parser, *_, **__):
        raise ParserReached(parser)

    with patch.object(Parser, "parse_args", stop), patch.object(Parser, "parse_known_args", stop):
        try:
            importlib.import_module(module).main([])
        except ParserReached as reached:
            return reached.args[0]
    raise RuntimeError(f"{module}: main() parses nothing")


def command_section(module: str) -> str:
    """One command: its name, its text, and the flags of each group as a list of definitions."""
    parser = parser_of(module)
    name = (
        parser.prog
        if parser.prog.endswith(".py")
        else f"python -m {module.removesuffix('.__main__')}"
    )
    parts = [f"### {name}", parser.description.strip()]
    groups = [
        (
            group.title,
            [action for action in group._group_actions if "--help" not in action.option_strings],
        )
        for group in parser._action_groups
    ]
    shown = [(title, actions) for title, actions in groups if actions]
    for title, actions in shown:
        named = title not in ("positional arguments", "options")
        parts += [f"**{title.capitalize()}**"] if named else []
        parts += [f"`{usage(action)}`\n: {escape(meaning(parser, action))}" for action in actions]
    return "\n\n".join(parts)


def usage(action: Action) -> str:
    """A flag with what follows it, or the name of a positional argument."""
    return HelpFormatter("", width=10_000)._format_action_invocation(action)


def meaning(parser: Parser, action: Action) -> str:
    """A flag's help, with its default in place."""
    if action.help:
        return parser._get_formatter()._expand_help(action)
    return "required" if action.required else f"default: {action.default}"


def escape(text: str) -> str:
    """Text that Markdown leaves as it is, with flags as code."""
    text = re.sub(r"([*<\[])", r"\\\1", text)
    return re.sub(r"(?<![\w`-])--\w+", r"`\g<0>`", text)
