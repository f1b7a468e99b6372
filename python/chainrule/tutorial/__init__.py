"""The tutorial as one page: every equation, and beside it the library computing it.

`build` returns the page, `chainrule tutorial` writes it. A chapter is a module here with a function
``write(chapter, quick)``. The page asks for nothing beside itself: style, script and figures are in
it. Same seed, same page: it holds neither a time nor a date.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from .. import __version__, info
from . import descent
from .page import Chapter, page

__all__ = ["TITLE", "build", "chapters"]

TITLE = "Machine learning, computed equation by equation"
LEAD = """
"""

# Anchor, title, the module's function, and its share of the time in seconds of a full build.
CHAPTERS = (("descent", "Learning is walking downhill", descent.write, 1),)
