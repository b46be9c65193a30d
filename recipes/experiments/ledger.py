"""`recipe.json` in the output folder: what the runs there were made of, so that no other is taken for it."""

import json
from pathlib import Path
from typing import Any

from experiments.recipe import Recipe
from experiments.runs import spec_of

from diffident.errors import ResumeError
from diffident.settings import load_settings
from diffident.storage.atomic import write_text
from diffident.storage.runs import differing_settings

LEDGER = "recipe.json"


def claim(out: Path, recipe: Recipe, sets: dict[str, Any]) -> None:
    """Write down what the recipe is about to make, unless the folder holds runs of the same names made otherwise.

    Args:
        out: The output folder.
        recipe: What will be run there.
        sets: Fingerprints of the evaluated sets.

    Raises:
        ResumeError: one message with everything that differs.
    """
    file = out / LEDGER
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"methods": {}, "sets": {}}
    now = {name: spec_of(recipe, method) for name, method in recipe.methods.items() if method.ensemble is None}
    differ = [
        f"{name}: {'; '.join(_differences(before['methods'][name], spec))}"
        for name, spec in now.items()
        if _was_run(out, name) and before["methods"].get(name, spec) != spec
    ]
    known = json.loads(json.dumps(sets))
    differ += [f"set {name}: other samples" for name, one in known.items() if before["sets"].get(name, one) != one]
    if differ:
        raise ResumeError(
            f"`--out` must hold runs of the same recipe; {out} differs: {'. '.join(differ)}. Use another --out, or "
            f"delete those runs."
        )
    ledger = {"methods": {**before["methods"], **now}, "sets": {**before["sets"], **known}}
    write_text(file, json.dumps(ledger, indent=1) + "\n")


def _was_run(out: Path, name: str) -> bool:
    return (out / "runs" / name).exists() or (out / "tuning" / name).exists()


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    old, new = (load_settings(**{k: v for k, v in spec["settings"].items()}) for spec in (before, now))
    words = differing_settings(old, new)
    for key in now:
        if key != "settings" and before.get(key) != now[key]:
            words.append(f"{key} was {before.get(key)}, now {now[key]}")
    return words or ["settings without effect"]
