"""`recipe.json` in the output folder: what the runs there were made of, so that no other is taken for it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffident.errors import ResumeError
from diffident.settings import load_settings
from diffident.settings.loading import with_earlier
from diffident.storage.atomic import write_text
from diffident.storage.runs import OF_TARGETS, differing_settings
from experiments.recipe import DifficultySpec, Recipe
from experiments.runs import spec_of

LEDGER = "recipe.json"


def claim_methods(out: Path, recipe: Recipe) -> None:
    """Write down what the methods' runs are made of, unless the folder holds runs of these names made otherwise.

    Raises:
        ResumeError: one message with everything that differs.
    """
    before, now = _read(out), {}
    for name, method in recipe.methods.items():
        if method.ensemble is None:
            now[name] = spec_of(recipe, method)
    differences = {
        name: _differences(_filled(before["methods"][name]), spec)
        for name, spec in now.items()
        if name in before["methods"] and _was_run(out, name)
    }
    _refuse(out, [f"{name}: {'; '.join(words)}" for name, words in differences.items() if words])
    _write(out, {**before, "methods": {**before["methods"], **now}})


def claim_sets(out: Path, sets: dict[str, list]) -> None:
    """The same for what is predicted: set and fingerprint."""
    before = _read(out)
    _refuse(out, [f"set {name}: other samples" for name, one in sets.items() if before["sets"].get(name, one) != one])
    _write(out, {**before, "sets": {**before["sets"], **sets}})


def _read(out: Path) -> dict[str, Any]:
    file = out / LEDGER
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"methods": {}, "sets": {}}


def _write(out: Path, ledger: dict[str, Any]) -> None:
    write_text(out / LEDGER, json.dumps(ledger, indent=1) + "\n")


def _refuse(out: Path, differ: list[str]) -> None:
    if differ:
        raise ResumeError(
            f"`--out` must hold runs of the same recipe; {out} differs: {'. '.join(differ)}. Use another --out, or "
            f"delete it."
        )


def _filled(spec: dict[str, Any]) -> dict[str, Any]:
    """With the settings and keys that there are since it was written, which are as if they were not."""
    made: dict[str, Any] = {
        key: asdict(load_settings(**with_earlier(spec[key]))) for key in ("settings", "dynamics") if key in spec
    }
    if spec["difficulty"] is not None:
        made["difficulty"] = asdict(DifficultySpec()) | spec["difficulty"]
    return json.loads(json.dumps({**spec, **made}))


def _was_run(out: Path, name: str) -> bool:
    return (out / "runs" / name).exists() or (out / "tuning" / name).exists()


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, but for settings that change no result."""
    words = _differing(before["settings"], now["settings"])
    if "dynamics" in before and "dynamics" in now:
        earlier = _differing(before["dynamics"], now["dynamics"])
        words += [f"in the training before it {word}" for word in earlier if word not in words]
        before, now = ({key: spec[key] for key in spec if key != "dynamics"} for spec in (before, now))
    for key in {**before, **now}:
        if key != "settings" and before.get(key) != now.get(key):
            words.append(f"{key} was {before.get(key)}, now {now.get(key)}")
    return words


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    old, new = load_settings(**before), load_settings(**now)
    words = differing_settings(old, new)
    for key in OF_TARGETS:  # resuming a run tells by its weights whether these matter, its results do not
        was, is_now = getattr(old, key), getattr(new, key)
        if was != is_now:
            words.append(f"{key} was {was}, now {is_now}")
    return words
