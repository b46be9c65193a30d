"""The sweeps of a recipe's results: what varies, and the methods at every value."""

from dataclasses import dataclass
from typing import Any

# Where a method itself stands in a sweep of what is done to the data.
_NOTHING_DONE = {"data.label_noise": 0.0, "data.imbalance": 1.0}


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    Attributes:
        name: In the recipe.
        vary: The key that varies.
        methods: Method and value to what the results say of it there, method by method.
        image: End of its picture's name.
    """

    name: str
    vary: str
    methods: dict[tuple[str, Any], dict[str, Any]]
    image: str

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers."""
        return all(isinstance(value, int | float) for _, value in self.methods)

    def shown(self, value: Any) -> str:
        """A value as tables have it."""
        return f"{value:g}" if isinstance(value, float) else str(value)


def sweeps_of(results: dict[str, Any]) -> list[Sweep]:
    """The sweeps, with the methods themselves at the value that they have without it, where that is known."""
    usual = {f"difficulty.{key}": value for key, value in results["difficulty"].items() if value is not None}
    usual |= {"data.limit": results["data"]["train"]["num_samples"], **_NOTHING_DONE}
    points = [(method["point"], method) for method in results["methods"].values() if "point" in method]
    found = []
    for name, vary in dict.fromkeys((point["sweep"], point["vary"]) for point, _ in points):
        own = [(point, method) for point, method in points if point["sweep"] == name]
        start = usual.get(vary)
        methods: dict[tuple[str, Any], dict[str, Any]] = {}
        for base in dict.fromkeys(point["method"] for point, _ in own):
            there = {point["value"]: method for point, method in own if point["method"] == base}
            if start is not None and base in results["methods"]:
                there.setdefault(start, results["methods"][base])
            ordered = all(isinstance(value, int | float) for value in there)
            values = sorted(there) if ordered and start is not None else list(there)
            methods |= {(base, value): there[value] for value in values}
        found.append(Sweep(name, vary, methods, f"-sweep-{name}.png"))
    return found
