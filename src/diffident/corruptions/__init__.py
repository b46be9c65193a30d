"""Common corruptions, made on the fly: 15 of images and 3 of text, each at 5 severities.

What a sample becomes depends on its id, the kind, the severity and the seed alone: not on the order of the samples, on
batches or on the machine. Images are made with the constants of CIFAR-10-C and ImageNet-C, see `levels`; of the
libraries on PyPI none fits both, see docs/posthoc.md.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffident.errors import InputError
from diffident.options import check_choice

if TYPE_CHECKING:
    from diffident.corruptions.samples import corrupt, corrupted

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "CorruptionKind",
    "corrupt",
    "corrupted",
    "find_corruption",
    "kinds_of",
    "parse_corruption",
]

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class CorruptionKind:
    """What can be asked of a corruption by name.

    Attributes:
        modality: `image` or `text`.
        group: `noise`, `blur`, `weather`, `digital`, or `characters` of text; the module that makes it.
        function: Its function there.
        summary: One line for lists of corruptions.
    """

    modality: str
    group: str
    function: str
    summary: str


def _image(group: str, function: str, summary: str) -> CorruptionKind:
    return CorruptionKind("image", group, function, summary)


CORRUPTIONS: dict[str, CorruptionKind] = {
    "gaussian-noise": _image("noise", "gaussian_noise", "normal noise"),
    "shot-noise": _image("noise", "shot_noise", "Poisson noise of the light"),
    "impulse-noise": _image("noise", "impulse_noise", "values set to black or white"),
    "defocus-blur": _image("blur", "defocus_blur", "a disk, as out of focus"),
    "glass-blur": _image("blur", "glass_blur", "pixels that change places with near ones"),
    "motion-blur": _image("blur", "motion_blur", "a streak to one side"),
    "zoom-blur": _image("blur", "zoom_blur", "the mean of enlarged images"),
    "snow": _image("weather", "snow", "flakes that fall aslant"),
    "frost": _image("weather", "frost", "ice on the window"),
    "fog": _image("weather", "fog", "bright clouds of fractal noise"),
    "brightness": _image("digital", "brightness", "more light"),
    "contrast": _image("digital", "contrast", "less contrast"),
    "elastic": _image("digital", "elastic", "a bent and tilted image"),
    "pixelate": _image("digital", "pixelate", "fewer pixels"),
    "jpeg": _image("digital", "jpeg", "strong compression"),
    "typos": CorruptionKind("text", "characters", "typos", "letters replaced by their neighbours on the keyboard"),
    "drops": CorruptionKind("text", "characters", "drops", "letters left out"),
    "swaps": CorruptionKind("text", "characters", "swaps", "neighbouring letters of a word exchanged"),
}


def find_corruption(name: str) -> CorruptionKind:
    """What is known of a corruption without loading it.

    Raises:
        InputError: no such corruption; names near ones.
    """
    check_choice("corruption", name, CORRUPTIONS)
    return CORRUPTIONS[name]


def kinds_of(modality: str) -> tuple[str, ...]:
    """The corruptions of a modality.

    Raises:
        InputError: there are none.
    """
    kinds = tuple(name for name, kind in CORRUPTIONS.items() if kind.modality == modality)
    if not kinds:
        raise InputError(f"`data` must be images or texts to be corrupted; got {modality} data. Give other data.")
    return kinds


def parse_corruption(text: str) -> tuple[str, int]:
    """Name and severity of KIND:SEVERITY, such as `fog:3`.

    Raises:
        InputError: another form, no such corruption, or no such severity.
    """
    name, separator, severity = text.partition(":")
    if not separator or not severity.strip().isdecimal():
        raise InputError(f"`corruption` must be KIND:SEVERITY; got {text!r}. For example fog:3.")
    find_corruption(name)
    check_severity(int(severity))
    return name, int(severity)


def check_severity(severity: int) -> None:
    """Refuse what is not one of the five."""
    if severity not in SEVERITIES:
        raise InputError(f"`severity` must be one of 1, 2, 3, 4, 5; got {severity!r}. 5 is the strongest.")


def __getattr__(name: str) -> Any:
    if name not in ("corrupt", "corrupted"):
        raise AttributeError(f"module 'diffident.corruptions' has no attribute {name!r}")
    return getattr(importlib.import_module("diffident.corruptions.samples"), name)
