"""Telling how far work is: a `progress` is called with (done, total)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def reporting(progress: Callable[[int, int], None] | None, total: int, unit: int = 1) -> Callable[[int], None]:
    """What is called with each amount of work that was done, and tells `progress` of (done, total).

    Args:
        progress: Called with whole units, or None.
        total: All the work.
        unit: How much work is one unit.
    """
    done = 0

    def did(work: int) -> None:
        nonlocal done
        done += work
        if progress is not None:
            progress(done // unit, total // unit)

    return did


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
    did = reporting(progress, total)
    did(0)
    for item in items:
        yield item
        did(size(item))
