"""The files that the commands write, checked before the work."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import click

from .._files import replace_file, shown

# Errors of a path that can name no folder and no file. Any other, such as a full disk, may pass.
UNUSABLE = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def write_picture(command: str, path: Path, save: Callable[..., object]) -> None:
    """Write a figure of matplotlib or an image of Pillow, by its method ``save``."""
    buffer = io.BytesIO()
    save(buffer, format="png")
    replace_file(command, path, [buffer.getbuffer()])


def prepare_folder(folder: Path) -> None:
    """Create the folder, and check before the training that it is writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise unusable_out(f"{shown(folder)}: path must be a folder, got a file") from None
    except OSError as error:
        if error.errno in UNUSABLE:
            raise unusable_out(f"{shown(folder)}: {error.strerror}") from None
        raise OSError(f"--out {shown(folder)}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"--out {shown(folder)}: folder must be writable, got a read-only one"
        )


def unusable_out(reason: object) -> click.BadParameter:
    """Return the error of a path that ``--out`` cannot name."""
    return click.BadParameter(str(reason), param_hint="'--out'")
