"""`chainrule tutorial`: write the tutorial page."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from .._files import replace_file, require_replaceable, shown
from .._optional import require
from . import terminal
from .exit_codes import SUCCESS
from .options import FilePath
from .outputs import UNUSABLE, prepare_folder, unusable_out


@click.command()
@click.option(
    "--out",
    type=FilePath(),
    metavar="FILE",
    default=Path("chainrule-tutorial.html"),
    show_default=True,
    help="File to write.",
)
@click.option(
    "--quick", is_flag=True, help="Train less: the page takes seconds, with less accurate networks."
)
def tutorial(out: Path, quick: bool) -> int:
    """Write the tutorial page, which computes 67 equations.

    The page is one interactive HTML file that works offline. It restates each equation of the
    tutorial, computes it with chainrule, and shows the code of each figure. It takes about half a
    minute on two cores.
    """
    for module in ("matplotlib", "latex2mathml", "pygments"):
        require(module)
    try:
        require_replaceable("", out)
    except (IsADirectoryError, ValueError) as error:  # also a pipe, a socket or a device
        raise unusable_out(error) from None
    except OSError as error:
        if error.errno in UNUSABLE:
            raise unusable_out(f"{shown(out)}: {error.strerror}") from None
        raise
    prepare_folder(out.parent)
    from ..tutorial import CHAPTERS, build

    shares = sum(share for *_, share in CHAPTERS)
    bar = None
    if sys.stderr.isatty() and terminal.has_escapes():  # the bar hides the cursor
        bar = click.progressbar(
            length=shares, file=sys.stderr, item_show_func=lambda title: title or ""
        )

    def show_progress(title: str, done: int) -> None:
        if bar is not None:
            bar.update(done - bar.pos, title)
        elif title:
            click.echo(f"{100 * done // shares:3} %  {title}", err=True)

    with bar or contextlib.nullcontext():
        page = build(quick, show_progress)
    replace_file("tutorial", out, [page.encode()])
    terminal.heading(f"Page written to {shown(out)}")
    size = len(page.encode()) / 1e6
    click.echo(f"  {size:.1f} MB in one file. Open it in a browser:\n")
    click.echo(click.style(f"  {out.resolve().as_uri()}", bold=True))
    return SUCCESS
