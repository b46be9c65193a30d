"""Mistakes in the letters of a text. A share of them changes, at least one where there is one to change."""

import numpy as np

RATES = (0.03, 0.06, 0.1, 0.15, 0.25)

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def typos(text: str, rate: float, generator: np.random.Generator) -> str:
    """Letters replaced by a neighbour on the keyboard; those that it lacks by another letter of the text."""
    letters = list(text)
    others = sorted({letter for letter in letters if letter.isalpha()})
    for place in _chosen(_letters(letters), rate, generator):
        old = letters[place]
        choices = _NEIGHBOURS.get(old.lower()) or [letter for letter in others if letter != old] or [old]
        new = choices[int(generator.integers(len(choices)))]
        letters[place] = new.upper() if old.isupper() else new
    return "".join(letters)


def drops(text: str, rate: float, generator: np.random.Generator) -> str:
    """Letters left out; the last one stays."""
    letters = list(text)
    places = _letters(letters)
    dropped = set(_chosen(places, rate, generator)) if len(places) > 1 else set()
    return "".join(letter for place, letter in enumerate(letters) if place not in dropped)


def swaps(text: str, rate: float, generator: np.random.Generator) -> str:
    """Letters exchanged with the following one of their word; none twice, and no equal ones."""
    letters = list(text)
    places = _letters(letters)
    wanted = _count(len(places), rate)
    pairs = [place for place in places if place + 1 < len(letters) and letters[place + 1].isalpha()]
    pairs = [place for place in pairs if letters[place] != letters[place + 1]]
    moved: set[int] = set()
    for place in generator.permutation(np.array(pairs, dtype=np.int64)).tolist():
        if wanted and place not in moved and place + 1 not in moved:
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
            moved |= {place, place + 1}
            wanted -= 1
    return "".join(letters)


def _letters(letters: list[str]) -> list[int]:
    return [place for place, letter in enumerate(letters) if letter.isalpha()]


def _count(num_letters: int, rate: float) -> int:
    return min(num_letters, max(1, round(rate * num_letters)))


def _chosen(places: list[int], rate: float, generator: np.random.Generator) -> list[int]:
    return [places[number] for number in generator.permutation(len(places))[: _count(len(places), rate)]]


def _neighbours() -> dict[str, list[str]]:
    """Letters left, right, above and below on an English keyboard, whose rows are offset by about half a key."""
    found: dict[str, list[str]] = {}
    for number, row in enumerate(_ROWS):
        for place, letter in enumerate(row):
            near = [row[other] for other in (place - 1, place + 1) if 0 <= other < len(row)]
            if number:
                near += [key for key in _ROWS[number - 1][place : place + 2]]
            if number + 1 < len(_ROWS):
                near += [key for key in _ROWS[number + 1][max(0, place - 1) : place + 1]]
            found[letter] = near
    return found


_NEIGHBOURS = _neighbours()
