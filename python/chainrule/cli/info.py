"""`chainrule info`: print the version, backends, threads and GPU."""

from __future__ import annotations

import click

from .. import info
from . import terminal
from .exit_codes import SUCCESS


@click.command("info")
def show_info() -> int:
    """Print version, backends, threads and GPU."""
    terminal.key_value_table(
        {name.replace("_", " "): _formatted(value) for name, value in info().items()}
    )
    return SUCCESS


def _formatted(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set):
        return ", ".join(map(str, value)) or "none"
    return str(value)
