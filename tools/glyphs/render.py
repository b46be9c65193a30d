"""Render the characters that the `glyphs` encoder is trained and validated on.

    python tools/glyphs/render.py out/glyph-pictures.npz

Reads the font files of the packages in fonts.txt and no others. The same packages and the same FreeType give the same
pictures, whose digest is printed.
"""

import argparse
import hashlib
import sys
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parent))
from fonts import font_files, read_packages

CANVAS, BODY = 48, 40
# fmt: off
SCRIPTS = {
    "DIGIT", "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "DEVANAGARI", "BENGALI",
    "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "KHMER",
    "MYANMAR", "ETHIOPIC", "CHEROKEE", "CANADIAN", "RUNIC", "OGHAM", "TIFINAGH", "COPTIC", "GLAGOLITIC", "GOTHIC",
    "NKO", "VAI", "HIRAGANA", "KATAKANA",
}
# fmt: on
MOST_CHARACTERS = {"LATIN": 150, "CYRILLIC": 80, "GREEK": 70, "ETHIOPIC": 80, "VAI": 60}
FILES_PER_FAMILY = 2
TOFU = 6
# Pictures where the letters should be.
NOT_LETTERS = {"D050000L.otf", "D050000L.ttf"}


@dataclass(frozen=True)
class Pictures:
    """Rendered characters.

    Attributes:
        images: Bright on black, uint8 [n, 48, 48].
        labels: Class of each, int64 [n]; characters that look the same are one class.
        families: Number of the font family of each, int64 [n].
        projects: Number of the project of each, int64 [n].
        held_out: Whether the project is for validation alone, bool [n].
        characters: The characters of each class, joined, [classes].
        project_names: Names of the projects.
    """

    images: np.ndarray
    labels: np.ndarray
    families: np.ndarray
    projects: np.ndarray
    held_out: np.ndarray
    characters: np.ndarray
    project_names: np.ndarray

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Pictures":
        with np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def digest(self) -> str:
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, field.name)).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Face:
    """A font file, its family and the characters it has."""

    path: Path
    family: str
    project: str
    held_out: bool
    characters: frozenset[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    pictures = render_all(open_faces())
    pictures.save(out)
    print(
        f"{len(pictures.images)} pictures, {len(pictures.characters)} classes, {len(set(pictures.families))} families, "
        f"{len(set(pictures.projects))} projects, digest {pictures.digest()}"
    )


def script_of(character: str) -> str:
    return unicodedata.name(character, "").split(" ")[0]


def open_faces() -> list[Face]:
    """Up to two files of every family of every project, in the order of the SHA-256 of their names."""
    faces = defaultdict(list)
    for path, package in font_files(read_packages()):
        if path.name in NOT_LETTERS:
            continue
        try:
            with TTFont(path, lazy=True) as font:
                family = font["name"].getBestFamilyName() or path.stem
                code_points = font.getBestCmap() or {}
        except TTLibError as error:
            print(f"passed over {path.name}: {error}")
            continue
        characters = frozenset(chr(code) for code in code_points if is_wanted(chr(code)))
        if characters:
            faces[package.project, family].append(Face(path, family, package.project, package.held_out, characters))
    chosen = []
    for _, members in sorted(faces.items()):
        members.sort(key=lambda face: hashlib.sha256(face.path.name.encode()).hexdigest())
        chosen += members[:FILES_PER_FAMILY]
    return chosen


def is_wanted(character: str) -> bool:
    """A letter or digit of the scripts that is no letter with an accent."""
    return (
        unicodedata.category(character) in ("Lu", "Ll", "Lo", "Nd")
        and script_of(character) in SCRIPTS
        and unicodedata.normalize("NFKD", character) == character
    )


def choose_characters(faces: list[Face]) -> list[str]:
    """The commonest characters of every script, in at least two families of training fonts."""
    families = defaultdict(set)
    for face in faces:
        for character in () if face.held_out else face.characters:
            families[character].add((face.project, face.family))
    by_script = defaultdict(list)
    for character, members in families.items():
        if len(members) >= 2:
            by_script[script_of(character)].append(character)
    chosen = []
    for script, members in sorted(by_script.items()):
        members.sort(key=lambda character: (-len(families[character]), character))
        chosen += members[: MOST_CHARACTERS.get(script, 40)]
    return chosen


def render_all(faces: list[Face]) -> Pictures:
    characters = choose_characters(faces)
    project_names = sorted({face.project for face in faces})
    family_names = sorted({(face.project, face.family) for face in faces})
    images, labels, rows, looks = [], [], [], []
    for face in faces:
        drawn = render_face(face, characters)
        labels += drawn
        images += drawn.values()
        numbers = family_names.index((face.project, face.family)), project_names.index(face.project), face.held_out
        rows += [numbers] * len(drawn)
        looks.append({n: image.tobytes() for n, image in drawn.items()})
    group = merge(len(characters), alike(looks))
    classes = sorted(set(group[label] for label in labels))
    joined = ["".join(c for c, member in zip(characters, group, strict=True) if member == first) for first in classes]
    families, projects, held_out = np.array(rows).T
    return Pictures(
        images=np.stack(images),
        labels=np.searchsorted(classes, [group[label] for label in labels]),
        families=families,
        projects=projects,
        held_out=held_out.astype(bool),
        characters=np.array(joined),
        project_names=np.array(project_names),
    )


def render_face(face: Face, characters: list[str]) -> dict[int, np.ndarray]:
    """Pictures by the character's number; a picture that many characters share is a placeholder and left out."""
    font = ImageFont.truetype(str(face.path), 64, layout_engine=ImageFont.Layout.BASIC)
    drawn = {n: render(character, font) for n, character in enumerate(characters) if character in face.characters}
    shared = Counter(image.tobytes() for image in drawn.values() if image is not None)
    return {n: image for n, image in drawn.items() if image is not None and shared[image.tobytes()] < TOFU}


def render(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    """The character, bright on black, filling 40 pixels of 48 in its longer side; None where there is no ink."""
    left, top, right, bottom = font.getbbox(character)
    width, height = right - left, bottom - top
    if min(width, height) < 4 or max(width, height) > 400:
        return None
    image = Image.new("L", (int(width), int(height)))
    ImageDraw.Draw(image).text((-left, -top), character, font=font, fill=255)
    if image.getextrema()[1] < 128:
        return None
    scale = BODY / max(width, height)
    image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(image, ((CANVAS - image.width) // 2, (CANVAS - image.height) // 2))
    return np.asarray(canvas)


def alike(looks: list[dict[int, bytes]]) -> list[tuple[int, int]]:
    """Pairs of characters with the same picture in at least half of the fonts that have both."""
    same = Counter()
    for look in looks:
        by_picture = defaultdict(list)
        for n, picture in look.items():
            by_picture[picture].append(n)
        same.update(pair for members in by_picture.values() for pair in combinations(members, 2))
    return [(a, b) for (a, b), count in same.items() if 2 * count >= sum(a in look and b in look for look in looks)]


def merge(num_characters: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The least member of each character's group, where pairs belong together."""
    group = list(range(num_characters))
    for a, b in pairs:
        old, new = max(group[a], group[b]), min(group[a], group[b])
        group = [new if member == old else member for member in group]
    return group


if __name__ == "__main__":
    main()
