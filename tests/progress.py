"""A `progress` that remembers."""


class Recorded:
    """Every (done, total) that it was called with, in `calls`."""

    def __init__(self):
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))

    def passes(self) -> list[list[tuple[int, int]]]:
        """The calls of one pass after the other: a pass begins at 0."""
        starts = [number for number, (done, _) in enumerate(self.calls) if done == 0]
        stops = [*starts[1:], len(self.calls)]
        return [self.calls[start:stop] for start, stop in zip(starts, stops, strict=True)]


def rises_to(calls: list[tuple[int, int]], total: int) -> bool:
    """Whether `done` never falls and ends at `total`, which never changes."""
    return calls == sorted(calls) and calls[-1:] == [(total, total)] and {last for _, last in calls} == {total}
