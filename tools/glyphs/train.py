"""Train the `glyphs` encoder on characters rendered from freely licensed fonts.

    python tools/glyphs/train.py --minutes 8

Needs the Debian packages of tools/glyphs/fonts.txt. Writes src/diffident/encoders/glyphs.safetensors and
tools/glyphs/train-log.jsonl. No handwritten data is used: fonts are held out for validation.
"""

import argparse
import json
import time
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file

from diffident.encoders.glyph_network import SIDE, GlyphNetwork

ROOT = Path(__file__).resolve().parents[2]
CANVAS, BODY = 48, 40
SCRIPTS = [
    "DIGIT",
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "ARMENIAN",
    "GEORGIAN",
    "HEBREW",
    "ARABIC",
    "DEVANAGARI",
    "BENGALI",
    "TAMIL",
    "TELUGU",
    "THAI",
    "ETHIOPIC",
    "CHEROKEE",
    "RUNIC",
    "OGHAM",
    "TIFINAGH",
    "COPTIC",
    "GLAGOLITIC",
    "GOTHIC",
    "LAO",
    "KHMER",
    "MYANMAR",
    "SINHALA",
    "GUJARATI",
    "KANNADA",
    "MALAYALAM",
    "NKO",
    "VAI",
]
MOST_PER_SCRIPT = {"LATIN": 150, "CYRILLIC": 80, "GREEK": 70, "ETHIOPIC": 80, "VAI": 60}
MOST_FONTS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "src/diffident/encoders/glyphs.safetensors")
    parser.add_argument("--log", type=Path, default=ROOT / "tools/glyphs/train-log.jsonl")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    started = time.monotonic()
    images, labels, fonts, characters, num_fonts = render_all(arguments.fonts, arguments.seed)
    log = [
        {
            "glyphs": len(images),
            "characters": len(characters),
            "fonts": num_fonts,
            "scripts": len({script_of(c) for c in characters}),
            "render_seconds": round(time.monotonic() - started, 1),
            "seed": arguments.seed,
            "torch": torch.__version__,
        }
    ]
    network, rows = train(images, labels, fonts, len(characters), arguments.minutes * 60)
    weights = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    save_file(weights, arguments.out)
    arguments.log.write_text("".join(json.dumps(row) + "\n" for row in log + rows))


def script_of(character: str) -> str:
    return unicodedata.name(character, "").split(" ")[0]


def render_all(folder: Path, seed: int):
    """Every character in every font that has it, uint8 [n, 48, 48]; labels; number of the font; characters."""
    by_character = defaultdict(list)
    files = sorted(path for suffix in ("ttf", "otf") for path in folder.rglob(f"*.{suffix}"))
    for number, path in enumerate(files):
        try:
            code_points = TTFont(path, lazy=True, fontNumber=0).getBestCmap() or {}
        except Exception as error:
            print(f"passed over {path.name}: {error}")
            continue
        for code in code_points:
            character = chr(code)
            if script_of(character) in SCRIPTS and unicodedata.category(character) in ("Lu", "Ll", "Lo", "Nd"):
                by_character[character].append(number)
    generator = np.random.default_rng(seed)
    characters = choose_characters(by_character)
    wanted = defaultdict(list)
    for label, character in enumerate(characters):
        chosen = by_character[character]
        if len(chosen) > MOST_FONTS:
            chosen = generator.choice(chosen, MOST_FONTS, replace=False)
        for number in chosen:
            wanted[int(number)].append(label)
    images, labels, fonts = [], [], []
    for number, chosen in wanted.items():
        font = ImageFont.truetype(str(files[number]), 64)
        for label in chosen:
            image = render(characters[label], font)
            if image is not None:
                images.append(image)
                labels.append(label)
                fonts.append(number)
    return np.stack(images), np.array(labels), np.array(fonts), characters, len(wanted)


def choose_characters(by_character: dict) -> list[str]:
    """The commonest characters of every script; those in at least two fonts."""
    by_script = defaultdict(list)
    for character, numbers in by_character.items():
        if len(numbers) >= 2 and unicodedata.normalize("NFD", character) == character:
            by_script[script_of(character)].append(character)
    chosen = []
    for script, members in sorted(by_script.items()):
        members.sort(key=lambda character: (-len(by_character[character]), character))
        chosen += members[: MOST_PER_SCRIPT.get(script, 40)]
    return chosen


def render(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    """The character, bright on black, filling 40 pixels of 48 in its longer side."""
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


def augment(images: torch.Tensor) -> torch.Tensor:
    """Random affine maps, stroke widths, low resolutions, noise; [n, 48, 48] uint8 to [n, 1, 32, 32]."""
    n = len(images)
    x = images[:, None].float() / 255
    thick = torch.rand(n)
    x = torch.where((thick > 0.55)[:, None, None, None], F.max_pool2d(x, 3, 1, 1), x)
    x = torch.where((thick > 0.8)[:, None, None, None], F.max_pool2d(x, 3, 1, 1), x)
    x = torch.where((thick < 0.12)[:, None, None, None], -F.max_pool2d(-x, 3, 1, 1), x)
    angle, shear = torch.randn(n) * 0.17, torch.randn(n) * 0.2
    scale = 1 / (0.85 + 0.35 * torch.rand(n, 2))
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin + shear], 1), torch.stack([sin, cos], 1)], 1) * scale[:, None]
    maps = torch.cat([rotation, torch.randn(n, 2, 1) * 0.06], dim=2)
    grid = F.affine_grid(maps, [n, 1, SIDE, SIDE], align_corners=False)
    bends = F.interpolate(torch.randn(n, 2, 4, 4) * 0.07, size=(SIDE, SIDE), mode="bicubic").permute(0, 2, 3, 1)
    x = F.grid_sample(x, grid + bends, align_corners=False)
    x = coarsen(x)
    x = x * (0.7 + 0.3 * torch.rand(n, 1, 1, 1)) + 0.04 * torch.randn_like(x) * torch.rand(n, 1, 1, 1)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-3)


def coarsen(x: torch.Tensor) -> torch.Tensor:
    """Two images in three pass through a resolution of 7 to 16 pixels in 16 grey levels."""
    parts = []
    for part in x.split(64):
        if torch.rand(()) < 0.67:
            side = int(torch.randint(7, 17, ()))
            small = (F.adaptive_avg_pool2d(part, side) * 16).round() / 16
            part = F.interpolate(small, size=(SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
        parts.append(part)
    return torch.cat(parts)


def train(images, labels, fonts, num_classes: int, seconds: float):
    """One-cycle AdamW until the time is up; every eighth font is held out."""
    held_out = fonts % 8 == 0
    data, targets = torch.from_numpy(images), torch.from_numpy(labels)
    rows = [np.flatnonzero(~held_out & (labels == label)) for label in range(num_classes)]
    present = np.array([label for label in range(num_classes) if len(rows[label])])
    network, head = GlyphNetwork(), torch.nn.Linear(96, num_classes)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.02)
    generator = np.random.default_rng(0)
    log, started, step, average = [], time.monotonic(), 0, None
    while (spent := time.monotonic() - started) < seconds:
        part = spent / seconds
        optimizer.param_groups[0]["lr"] = 3e-3 * min(part / 0.05, 1) * 0.5 * (1 + np.cos(np.pi * part))
        classes = generator.choice(present, 512)
        chosen = np.array([rows[label][generator.integers(len(rows[label]))] for label in classes])
        logits = head(network.train()(augment(data[chosen])))
        loss = F.cross_entropy(logits, targets[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        step += 1
        if step % 100 == 0:
            log.append({"step": step, "seconds": round(spent, 1), "loss": round(average, 4)})
    accuracy = held_out_accuracy(network, head, data, targets, np.flatnonzero(held_out))
    log.append({"step": step, "images": step * 512, "seconds": round(seconds, 1), "held_out_font_accuracy": accuracy})
    return network, log


@torch.no_grad()
def held_out_accuracy(network, head, data, targets, rows) -> float:
    network.eval()
    right = [
        (head(network(augment(data[part]))).argmax(1) == targets[part]).float() for part in np.array_split(rows, 50)
    ]
    return round(float(torch.cat(right).mean()), 4)


if __name__ == "__main__":
    main()
