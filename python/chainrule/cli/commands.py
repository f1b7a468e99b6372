"""The command `chainrule`, which has one command per module of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import click

from .. import __version__
from . import terminal
from .evaluate import evaluate_model
from .exit_codes import SUCCESS
from .info import show_info
from .mnist import mnist
from .predict import predict
from .train import train
from .tutorial import tutorial


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        result = chainrule.main(
            None if arguments is None else list(arguments), "chainrule", standalone_mode=False
        )
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return result if isinstance(result, int) else SUCCESS


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.pass_context
def chainrule(context: click.Context) -> None:
    """Train and run small neural networks."""
    if not terminal.has_escapes():
        context.color = False


for command in (train, evaluate_model, predict, mnist, tutorial, show_info):
    chainrule.add_command(command)
