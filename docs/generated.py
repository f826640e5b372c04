"""The parts of the reference that are made from the code: settings, commands, metrics, alerts."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
import yaml
from prometheus_client.core import Metric
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from typer.core import TyperArgument, TyperGroup

from reddit_assets.cli.app import app
from reddit_assets.figures import Figures, QueueFigures, Trees
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.operations import QueueCounts
from reddit_assets.ledger.pace import Pace
from reddit_assets.metrics import WholeCollector
from reddit_assets.settings import Settings, variable_of
from reddit_assets.worker import metrics as worker_metrics
from reddit_assets.workspace import Workspace

__all__ = ["PARTS", "entry_of"]

TOP = Path(__file__).parent.parent
SETTINGS, COMMANDS = "docs/reference/settings", "docs/reference/commands"
PROGRAM = "reddit-assets"

Words = tuple[str, ...]


# --- settings -------------------------------------------------------------------------------
def settings() -> str:
    """Every setting, in the sections of ``settings.py``."""
    flags = _flags()
    parts = []
    for title, names in _sections():
        parts.append(f"## {title[0].upper()}{title[1:]}\n")
        parts += [_setting(name, flags.get(variable_of(name), [])) for name in names]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, list[str]]]:
    """Titles of the comments in ``Settings``, each with the fields below it."""
    source = inspect.getsource(Settings)
    _, *pieces = re.split(r"^    # --- (.+?) -+$", source, flags=re.MULTILINE)
    for title, body in zip(pieces[::2], pieces[1::2], strict=True):
        named = re.findall(r"^    (\w+):", body, flags=re.MULTILINE)
        yield title, [name for name in named if name in Settings.model_fields]


def _setting(name: str, flags: list[str]) -> str:
    field = Settings.model_fields[name]
    variable = variable_of(name)
    others = "".join(f", also `{other}`" for other in _other_names(field))
    facts = " · ".join([f"*{_type(field)}*", _default(field), *flags])
    told = _words(field.description)
    return f"`{variable}`{{#{anchor(variable)}}}{others}\n: {told}\n\n  {facts}\n"


def _other_names(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    names = [str(name) for name in alias.choices[1:]] if isinstance(alias, AliasChoices) else []
    return [name for name in names if name.isupper()]


def _type(field: FieldInfo) -> str:
    """What may be said, in words."""
    kinds = get_args(field.annotation) or (field.annotation,)
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(str(kind) for kind in kinds)
    for kind in kinds:
        if get_origin(kind) is Literal:
            return "one of " + ", ".join(str(value) for value in get_args(kind))
    words = {
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "path",
        str: "text",
        SecretStr: "text, never shown",
    }
    kind = next(words[kind] for kind in kinds if kind in words)
    bounds = {type(bound).__name__: bound for bound in field.metadata}
    low, high = bounds.get("Ge"), bounds.get("Le")
    if low is not None and high is not None:
        return f"{kind}, {low.ge} to {high.le}"
    if low is not None:
        return f"{kind}, at least {low.ge}"
    return f"{kind} above {bounds['Gt'].gt}" if "Gt" in bounds else kind


def _default(field: FieldInfo) -> str:
    if field.default is None or field.default == "":
        return "unset by default"
    value = str(field.default)
    return f"default `{value.lower() if isinstance(field.default, bool) else value}`"


def _flags() -> dict[str, list[str]]:
    """For each variable, the flags that set it and the commands that have them."""
    found: dict[str, dict[str, list[str]]] = {}
    for path, command in commands():
        for parameter in command.params:
            named = re.search(r"\[([A-Z_]+)\]$", getattr(parameter, "help", None) or "")
            if named:
                flag = _declaration(parameter)
                found.setdefault(named[1], {}).setdefault(flag, []).append(" ".join(path))
    return {
        variable: [f"`{flag}` of {_some(names)}" for flag, names in flags.items()]
        for variable, flags in found.items()
    }


def _some(names: list[str]) -> str:
    """Commands with links, or how many they are."""
    if len(names) > 6:
        return f"{len(names)} commands"
    return ", ".join(f"[{name}](#command-{anchor(name)})" for name in names)


# --- commands -------------------------------------------------------------------------------
@cache
def commands() -> tuple[tuple[Words, Any], ...]:
    """All commands with the words that call them, in the order of ``--help``."""

    def below(path: Words, command: Any) -> Iterator[tuple[Words, Any]]:
        if path:
            yield path, command
        if isinstance(command, TyperGroup):
            for name, one in command.commands.items():
                yield from below((*path, name), one)

    return tuple(below((), typer.main.get_command(app)))


def all_commands() -> str:
    """What there is, and every command with its flags and examples."""
    lines = ["| command | |", "|---|---|"]
    for path, command in commands():
        told = _words(command.help).partition("\n\n")[0]
        lines.append(f"| [`{' '.join(path)}`](#command-{anchor(' '.join(path))}) | {told} |")
    return "\n".join([*lines, "", *(_command(path, command) for path, command in commands())])


def _command(path: Words, command: Any) -> str:
    name = " ".join(path)
    level = "#" * (1 + len(path))
    arguments = [_argument(one) for one in command.params if isinstance(one, TyperArgument)]
    usage = " ".join([PROGRAM, name, *arguments, "[OPTIONS]"])
    parts = [f"(command-{anchor(name)})=\n{level} {name}\n", f"```sh\n{usage}\n```\n"]
    parts += [_words(command.help), ""]
    parts += [_parameter(one) for one in command.params]
    parts += [_epilog(command.epilog)]
    return "\n".join(parts)


def _argument(argument: TyperArgument) -> str:
    name = (argument.metavar or argument.name or "").strip("[].").upper()
    name += " …" if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _declaration(parameter: Any) -> str:
    return max([*parameter.opts, *parameter.secondary_opts], key=len, default="")


def _parameter(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        names = f"`{_argument(parameter)}`"
    else:
        value = "" if parameter.is_flag else " …"
        names = ", ".join(
            f"`{name}{value}`" for name in [*parameter.opts, *parameter.secondary_opts]
        )
    told = _words(re.sub(r"\[([A-Z_]+)\]$", r"\1.", parameter.help or ""))
    default = parameter.default
    if isinstance(default, (int, float, str)) and not isinstance(default, bool) and default != "":
        told += f" Default: `{default}`."
    return f"{names}\n: {told}\n"


def _epilog(text: str | None) -> str:
    """Examples as code, other sentences as text."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", (text or "").strip()):
        paragraph = paragraph.replace("\b\n", "").strip()
        title, _, example = paragraph.partition(":  ")
        if title == "Example":
            parts.append(f"```sh\n{example}\n```\n")
        elif f"{PROGRAM} " in paragraph:
            lines = [
                re.sub(r"(\S) {3,}", r"\1  # ", line.strip()) for line in paragraph.split("\n")
            ]
            lines = [line for line in lines if not line.startswith("Example")]
            parts += ["```sh\n" + "\n".join(lines) + "\n```\n"] if lines else []
        elif not paragraph.startswith("Example"):
            parts.append(_words(paragraph) + "\n")
    return "\n".join(parts)


def _words(text: str | None) -> str:
    """Help as Markdown: variables and flags as code, its signs as they are."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))
    return "\n\n".join(_sentences(" ".join(paragraph.split())) for paragraph in paragraphs)


def _sentences(text: str) -> str:
    pieces = re.split(r"(`[^`]+`|(?<![\w-])--[a-z][a-z-]+|\b[A-Z]+_[A-Z_]+(?:=\w+)?)", text)
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = piece if piece.startswith("`") else f"`{piece}`"
        else:
            pieces[index] = re.sub(r"([<*_])", r"\\\1", piece)
    return "".join(pieces)


# --- metrics and alerts ---------------------------------------------------------------------
def worker() -> str:
    """What a worker measures."""
    collectors: list[Any] = [getattr(worker_metrics, name) for name in worker_metrics.__all__]
    return _table((next(iter(one.describe())), one._labelnames) for one in collectors)


def whole() -> str:
    """What a reporter measures."""
    counts = QueueCounts(0, 0, 0, 0, 0, 0, 0, 0, 0, paused=False, totals={})
    with tempfile.TemporaryDirectory() as folder:
        nowhere = Settings(root=Path(folder), redis_url=SecretStr("redis://127.0.0.1:1/0"))
        collector = WholeCollector(Workspace.load(nowhere))
        collector.figures = Figures(0, Trees(), {Kind.EMBED: QueueFigures(counts, {}, Pace())})
        metrics = list(collector.collect())
    return _table((metric, tuple(metric.samples[0].labels)) for metric in metrics)


def _table(metrics: Iterable[tuple[Metric, Iterable[str]]]) -> str:
    lines = ["| metric | labels | meaning |", "|---|---|---|"]
    for metric, labels in metrics:
        lines.append(f"| `{_exposed(metric)}` | {', '.join(labels)} | {metric.documentation} |")
    return "\n".join(lines)


def _exposed(metric: Metric) -> str:
    """The name to ask Prometheus for."""
    suffixes = {"counter": "_total", "histogram": "_bucket"}
    return metric.name + suffixes.get(metric.type, "")


def alerts() -> str:
    """The alert rules in `deploy/prometheus`."""
    rules = yaml.safe_load((TOP / "deploy" / "prometheus" / "alerts.yaml").read_text())
    lines = ["| alert | says | after | do |", "|---|---|---|---|"]
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        said = rule["annotations"]
        shown = [_filled(said[part]) for part in ("summary", "description")]
        lines.append(f"| `{rule['alert']}` | {shown[0]} | {rule['for']} | {shown[1]} |")
    return "\n".join(lines)


def _filled(text: str) -> str:
    """What Prometheus fills in, as a word in capitals."""
    return re.sub(r"{{ *(\$labels\.)?\$?(\w+).*?}}", lambda found: found[2].upper(), text)


# --- links ----------------------------------------------------------------------------------
def anchor(name: str) -> str:
    """The id of a setting's or command's entry."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


@cache
def _variables() -> frozenset[str]:
    return frozenset(variable_of(name) for name in Settings.model_fields)


def entry_of(text: str) -> tuple[str, str] | None:
    """Page and anchor of the setting or the command that a piece of code names."""
    variable = re.match(r"[A-Z][A-Z_]+(?==|$)", text)
    if variable and variable[0] in _variables():
        return SETTINGS, anchor(variable[0])
    words = text.split()
    if words[:1] != [PROGRAM]:
        return None
    known = {path for path, _ in commands()}
    for length in (2, 1):
        if tuple(words[1 : 1 + length]) in known:
            return COMMANDS, f"command-{anchor(' '.join(words[1 : 1 + length]))}"
    return None


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "commands": all_commands,
    "worker": worker,
    "whole": whole,
    "alerts": alerts,
}
