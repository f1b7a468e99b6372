"""Files: one meaning of paths, opening of regular files only, and atomic replacement."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

from ._optional import importing

PathLike: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# A temporary file that is older was left by a process that was killed while writing.
STALE_SECONDS = 3600
MAX_LINKS = 40  # as in Linux
MAX_NAME = 255  # bytes, as in Linux
# Room for the temporary name. Longer targets have a temporary name of their own length.
SHORT_NAME = 64
# fsync on some file systems and on folders of others.
NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def home_folder() -> str | None:
    """Return the user's home folder, or None if it is unknown, as in some containers."""
    home = os.environ.get("HOME", "")
    if not os.path.isabs(home):
        try:
            with importing:
                import pwd
            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            return None
    return home if os.path.isabs(home) else None


def shown(path: PathLike) -> str:
    """Return the path for a message, with characters that cannot be printed as escapes."""
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else repr(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def expanded(operation: str, path: PathLike) -> str:
    """Return a path argument as text, with a leading ``~`` or ``~user`` replaced by that home.

    All paths of the library have this meaning, as in a shell. ``~name`` without a user of that name
    is a file name. ``./~`` is a file named "~".

    Raises
    ------
    TypeError
        If it is not a path.
    ValueError
        If it is empty, contains a null character or an invalid one, or if the home is unknown.

    Examples
    --------
    >>> from chainrule._files import expanded
    >>> expanded("load", b"net.safetensors")
    'net.safetensors'
    """
    start = f"{operation}: " if operation else ""
    try:
        text = os.fsdecode(path)
    except TypeError:
        got = type(path).__name__
        raise TypeError(f"{start}path must be a str, bytes or os.PathLike, got {got}") from None
    if not text:
        raise ValueError(f"{start}path must not be empty")
    try:
        if b"\0" in os.fsencode(text):
            raise ValueError(f"{start}path must not contain a null character, got {text!r}")
    except UnicodeEncodeError:
        raise ValueError(f"{start}path must have valid characters, got {text!r}") from None
    first, slash, rest = text.partition("/")
    if first == "~":
        home = home_folder()
        if home is None:
            raise ValueError(
                f"{start}path must not begin with ~ if the home folder is unknown, "
                f"got {shown(text)}: set HOME"
            )
        return home.rstrip("/") + slash + rest or "/"
    if not text.startswith("~"):
        return text
    with importing:  # it imports pwd
        return os.path.expanduser(text)


def expanded_path(operation: str, path: PathLike) -> Path:
    """Return `expanded` as a Path that has the same meaning as an argument.

    A Path drops a leading "./", so ``./~`` becomes absolute.
    """
    found = Path(expanded(operation, path))
    return found.absolute() if str(found).startswith("~") else found


def require_regular(operation: str, path: PathLike, mode: int) -> None:
    """Raise an error unless ``mode``, from stat, is that of a regular file.

    Raises
    ------
    IsADirectoryError
        If it is a folder.
    ValueError
        If it is a pipe, a socket or a device: reading could block or never end.
    """
    if stat.S_ISREG(mode):
        return
    start = f"{operation}: " if operation else ""
    got = KINDS.get(stat.S_IFMT(mode), "another kind of file")
    error = IsADirectoryError if stat.S_ISDIR(mode) else ValueError
    raise error(f"{start}{shown(path)}: path must be a regular file, got {got}")


def open_regular(operation: str, path: PathLike) -> BufferedReader:
    """Open a regular file for reading. Pipes, sockets and devices are not opened.

    Raises
    ------
    OSError
        If the file cannot be opened. The error has the path as given.
    TypeError, ValueError
        As `expanded` and `require_regular`.
    """
    text = expanded(operation, path)
    try:
        # Before opening, because opening alone changes some devices. After it, because another
        # file can have the name by then: O_NONBLOCK opens a pipe at once.
        require_regular(operation, path, os.stat(text).st_mode)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        file = open(text, "rb", opener=lambda text, _: os.open(text, flags))  # noqa: SIM115
        try:
            require_regular(operation, path, os.fstat(file.fileno()).st_mode)
        except BaseException:
            file.close()
            raise
        return file
    except OSError as error:
        raise _with_path(error, path) from None


def _with_path(error: OSError, path: PathLike) -> OSError:
    """Return the error with the path as given, which never is that of a temporary file."""
    if error.errno is None:
        return error
    return OSError(error.errno, error.strerror, os.fsdecode(path))


@contextlib.contextmanager
def explained_memory_errors(text: str) -> Iterator[None]:
    """Raise every failed allocation as a MemoryError with a text.

    Python's own MemoryError has none, NumPy's names no file, and the system's is an OSError.
    """
    try:
        yield
    except MemoryError as error:
        if type(error) is MemoryError and str(error):
            raise
        raise MemoryError(f"{text}: {error}" if str(error) else text) from None
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise MemoryError(text) from None


def replace_file(operation: str, path: PathLike, chunks: Iterable[ReadableBuffer]) -> None:
    """Write a file atomically: afterwards the path has the old content or the new one.

    The bytes are written to a temporary file in the same folder. The file is flushed and renamed,
    and the folder is flushed if it can be. Nothing that follows the renaming raises an error. A
    symbolic link stays, and the file that it names is replaced. Other hard links keep the old
    content. A new file has the mode that ``open`` gives. An existing file keeps its mode, and if
    permitted its owner.

    Parameters
    ----------
    operation : str
        Start of error messages.
    path : path-like
    chunks : iterable of bytes-like
        The content.

    Raises
    ------
    OSError
        If writing fails. An existing file is then unchanged. The error has the path as given.
    TypeError, ValueError
        As `expanded` and `require_regular`.
    """
    try:
        folder, name = os.path.split(_link_target(expanded(operation, path)))
        try:
            before = os.stat(os.path.join(folder, name))
        except FileNotFoundError:
            before = None
        if before is not None or name in ("", ".", ".."):
            require_regular(operation, path, before.st_mode if before else stat.S_IFDIR)
        _replace(folder or ".", name, before, chunks)
    except OSError as error:
        raise _with_path(error, path) from None


def require_replaceable(operation: str, path: PathLike) -> None:
    """Raise the error that `replace_file` would raise for this path before it writes anything.

    Raises
    ------
    OSError, TypeError, ValueError
        As `replace_file`.
    """
    text = expanded(operation, path)
    try:
        require_regular(operation, path, os.stat(text).st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _with_path(error, path) from None


def previous_path(operation: str, path: PathLike) -> str:
    """Return the path at which `keep_previous` keeps a file: its own with ".previous" at the end.

    Raises
    ------
    TypeError, ValueError
        As `expanded`. Also if the name is too long for that.
    """
    previous = _link_target(expanded(operation, path)) + ".previous"
    if len(os.fsencode(os.path.basename(previous))) > MAX_NAME:
        raise ValueError(
            f"{operation}: path must have a name of at most {MAX_NAME - len('.previous')} bytes, "
            f"got {shown(path)}"
        )
    return previous


def keep_previous(operation: str, path: PathLike) -> None:
    """Give a file a second name, `previous_path`, in place of an older file of that name.

    If the process is killed meanwhile, ``path`` is complete. A file system without hard links is an
    exception: the file is renamed, and ``path`` does not exist until it is written again.

    Raises
    ------
    OSError
        If that fails. ``path`` is then unchanged.
    """
    previous = previous_path(operation, path)
    target = previous.removesuffix(".previous")
    try:
        require_regular(operation, path, os.stat(target).st_mode)
    except FileNotFoundError:
        return
    try:
        remove_regular(previous)
        try:
            os.link(target, previous)
        except OSError:
            os.replace(target, previous)
    except OSError as error:
        raise _with_path(error, previous) from None


def remove_regular(path: str | os.PathLike[str]) -> None:
    """Remove a file if it exists and is a regular one."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)


def _link_target(path: str) -> str:
    """Return the file that a symbolic link finally names, which may not exist.

    Only the last part is resolved: os.path.realpath fails in a folder whose absolute path is too
    long for the system, or is not accessible.
    """
    for _ in range(MAX_LINKS):
        try:
            link = os.readlink(path)
        except OSError:
            return path
        path = os.path.join(os.path.dirname(path), link)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _replace(
    folder: str,
    name: str,
    before: os.stat_result | None,
    chunks: Iterable[ReadableBuffer],
) -> None:
    start = _temporary_start(name)
    _remove_strays(folder, start)
    temporary = f"{start}{os.urandom(8).hex()}.tmp"
    mode = 0o666 if before is None else 0o600
    # Names relative to the open folder: its path can be so long that the temporary name, which is
    # longer than a short target, would exceed the system's limit.
    where = None
    with contextlib.suppress(OSError):
        # O_PATH opens a folder that may be written and entered, but not listed.
        where = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            file = _create(where, folder, temporary, mode)
        except OSError as error:
            if where is None or error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # The folder has taken the last free descriptor.
            os.close(where)
            where = None
            file = _create(where, folder, temporary, mode)
        if where is None:
            temporary, name = os.path.join(folder, temporary), os.path.join(folder, name)
        try:
            with file:
                if before is not None:
                    _copy_owner_and_mode(file.fileno(), before)
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                _flush_to_disk(file.fileno())
            os.replace(temporary, name, src_dir_fd=where, dst_dir_fd=where)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=where)
            raise
        # The file is replaced: an error would now say the opposite.
        with contextlib.suppress(OSError, MemoryError):
            _flush_folder(folder, where)
    finally:
        if where is not None:
            os.close(where)


def _create(where: int | None, folder: str, name: str, mode: int) -> BufferedWriter:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    path = name if where is not None else os.path.join(folder, name)
    return open(path, "wb", opener=lambda path, _: os.open(path, flags, mode, dir_fd=where))


def _temporary_start(name: str) -> str:
    """Return the start of the temporary names of a target.

    The whole name is no longer than the target's or `SHORT_NAME`, and valid UTF-8.
    """
    encoded = os.fsencode(name)
    kept = max(len(encoded), SHORT_NAME) - len("..0123456789abcdef.tmp")
    return f".{encoded[:kept].decode('utf-8', 'ignore')}."


def _remove_strays(folder: str, start: str) -> None:
    pattern = re.compile(re.escape(start) + r"[0-9a-f]{16}\.tmp")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    changed = entry.stat(follow_symlinks=False).st_mtime
                    if time.time() - changed > STALE_SECONDS:
                        os.unlink(entry.path)


def _copy_owner_and_mode(descriptor: int, before: os.stat_result) -> None:
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.fchown(descriptor, before.st_uid, before.st_gid)
        except OSError:
            with contextlib.suppress(OSError):
                os.fchown(descriptor, -1, before.st_gid)
    # After the owner, whose change clears bits. Some file systems have no modes.
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, before.st_mode & 0o777)


def _flush_to_disk(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise


def _flush_folder(folder: str, where: int | None) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    # A descriptor of O_PATH cannot be flushed.
    descriptor = os.open(folder if where is None else ".", flags, dir_fd=where)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
