"""Telling how far work is: a `progress` is called with (done, total)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def _one(item: Any) -> int:
    return 1


def counted(
    items: Iterable[Item],
    total: int,
    progress: Callable[[int, int], None] | None,
    size: Callable[[Item], int] = _one,
) -> Iterator[Item]:
    """The items; `progress` is called at first, and after each has been used.

    Args:
        items: What is worked on.
        total: All the work.
        progress: Called with (done, total), or None.
        size: How much work an item is.
    """
    report, done = progress or (lambda done, total: None), 0
    report(done, total)
    for item in items:
        yield item
        done += size(item)
        report(done, total)
