"""``reddit-assets settings``: every setting, its variable, its value."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import SecretStr

from reddit_assets.cli.options import AsJson, Root, print_json

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("settings", epilog="Example:  reddit-assets settings --json")(show)


def _shown(value: object) -> object:
    """A value without secrets."""
    from reddit_assets.errors import without_login

    if isinstance(value, SecretStr):
        return "(set, hidden)"
    return without_login(value) if isinstance(value, str) else value


def show(root: Root = None, as_json: AsJson = False) -> None:
    """Print all settings with value, environment variable and meaning; secrets are hidden."""
    from reddit_assets.settings import Settings, load_settings, variable_of

    settings = load_settings(root=root)
    found: list[dict[str, Any]] = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        found.append(
            {
                "name": name,
                "variable": variable_of(name),
                "value": _shown(value),
                "default": value == field.default,
                "meaning": field.description or "",
            }
        )
    if as_json:
        print_json(found)
        return
    from rich.table import Table
    from rich.text import Text

    from reddit_assets.cli.progress import printer

    table = Table("setting", "variable", "value", "meaning", show_lines=False)
    for item in found:
        value = item["value"]
        text = "(unset)" if value is None or value == "" else str(value)
        table.add_row(
            item["name"],
            item["variable"],
            Text(text, style="dim" if item["default"] else "bold"),
            item["meaning"],
        )
    printer().print(table)
