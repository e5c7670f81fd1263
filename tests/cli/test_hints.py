"""Every hint in a message can be typed: its command, its options and its settings exist."""

import ast
import re
from pathlib import Path

import pytest
import typer

import seqrec
from seqrec.cli import app
from seqrec.cli.options import in_options
from seqrec.experiment import settings_table
from seqrec.experiment.settings import RunSettings

SOURCE = Path(seqrec.__file__).parent
NO_COMMANDS = {
    "and",
    "import",
    "in",
    "knows",
    "offers",
    "of",
    "that",
    "wrote",
}  # words after the name in a sentence
OF_OTHERS = {
    "--logdir",
    "--porcelain",
    "--untracked-files",
    "--only-binary",
    "--retries",
    "--timeout",
    "--no-deps",
}
"""Options of other programs."""


def commands() -> dict[str, set[str]]:
    """Name -> options of every command."""
    found = {}
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        for part, one in (inner or {"": command}).items():
            found[f"{name} {part}".strip()] = {
                option
                for p in one.params
                for option in (*p.opts, *p.secondary_opts)
                if option.startswith("-")
            } | {"--help"}
    found[""] = {option for p in group.params for option in p.opts} | {"--help"}
    return found


def texts() -> list[tuple[str, str]]:
    """(place, text) of every string that is no docstring; what is filled in is ``{}``."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skip = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in ast.walk(tree):
            if id(node) in skip | inside:
                continue
            place = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
                found.append((place, "".join(map(str, parts))))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append((place, node.value))
    return found


TEXTS = texts()


def test_every_command_of_a_hint_exists():
    known = commands()
    first = {name.split()[0] for name in known if name}
    wrong = []
    for place, text in TEXTS:
        for match in re.finditer(r"(?<![\w.-])seqrec ((?:data )?[a-z]+)((?: --?[a-z][a-z0-9-]*)*)", text):
            name, options = match[1], match[2].split()
            if name in NO_COMMANDS:
                continue
            if name not in known and name.split()[0] not in first:
                wrong.append(f"{place}: seqrec {name}")
            wrong += [f"{place}: seqrec {name} {o}" for o in options if o not in known.get(name, options)]
    assert not wrong, "\n".join(wrong)


def test_every_help_has_an_example_that_can_be_typed():
    known = commands()
    for name, help in helps().items():
        examples = re.findall(r"^ *(?:seqrec (.*))$", help, re.M)
        assert examples, f"seqrec {name} --help: an example in its last line, as seqrec {name} ..."
        for example in examples:
            assert example.startswith(f"{name} "), f"seqrec {name} --help: {example}"
            said = set(re.findall(r"(?<= )--?[a-z][a-z-]*", example))
            assert said <= known[name], f"seqrec {name} --help: {said - known[name]}"


def helps() -> dict[str, str]:
    """Name -> help of every command."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        for part, one in (getattr(command, "commands", None) or {"": command}).items():
            found[f"{name} {part}".strip()] = one.help or ""
    return found


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "users: 1 user(s). Pass on_unknown='warn' or 'ignore'.",
            "--user: 1 user(s). Pass --on-unknown warn or ignore.",
        ),
        ("items has 1 item(s).", "--item has 1 item(s)."),
        ("sequences: sequence 0 has 1 item(s).", "--sequence: sequence 0 has 1 item(s)."),
        ("data.path: no such file.", "data.path: no such file."),
        ("device: expected 'auto'.", "device: expected 'auto'."),
    ],
)
def test_arguments_become_options(message, expected):
    names = {"user": "--user", "item": "--item", "sequence": "--sequence", "on_unknown": "--on-unknown"}
    assert in_options(message, names) == expected


def test_every_option_of_a_hint_exists():
    known = set().union(*commands().values())
    wrong = [
        f"{place}: {option}"
        for place, text in TEXTS
        for option in re.findall(r"(?<![\w(-])--[a-z][a-z0-9-]+", text)
        if option not in known | OF_OTHERS
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("section", ["data", "split", "train", "fit", "evaluate", "output", "negatives"])
def test_every_setting_of_a_hint_exists(section):
    assert section in RunSettings.model_fields
    tables = ["last_n", *settings_table.SPLITS] if section == "split" else [section]
    known = {row["key"] for name in tables for row in settings_table.table(name).rows} | {
        "py",
        "csv",
        "parquet",
    }
    if section == "data":  # that of a protocol
        known |= {"revision", "read", "largest_user_id"}
    wrong = [
        f"{place}: {section}.{key}"
        for place, text in TEXTS
        for key in re.findall(rf"(?<![\w./]){section}\.([a-z_]+)(?=[=\s:,.)]|$)", text)
        if key not in known
    ]
    assert not wrong, "\n".join(wrong)
