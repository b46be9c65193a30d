"""Every detector of pytorch-ood that reads logits or features: `pytorch-ood:NAME`, NAME its class there.

Those that need the network itself (gradients, feature maps, several layers) are refused: use pytorch-ood with the
network. What a class takes beside the network, such as `k` or the last layer's `head`, are its options here.

Optional extra `ood`.
"""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.errors import InputError, MissingDependencyError, did_you_mean

if TYPE_CHECKING:
    from diffident.detectors import DetectorKind
    from diffident.detectors.protocol import Outputs


@dataclass(frozen=True)
class Peer:
    """A fitted detector of pytorch-ood.

    Attributes:
        name: Its class.
        detector: The object.
        reads: `logits` or `features`.
        options: As given.
    """

    name: str
    detector: Any
    reads: str
    options: dict[str, Any]


def kind_of(name: str) -> "DetectorKind":
    """What can be asked of a class of pytorch-ood.

    Raises:
        MissingDependencyError: pytorch-ood is not installed.
        InputError: no such class, or one that needs the network.
    """
    from diffident.detectors import DetectorKind

    found = _class_of(name)
    reads = _reads(found)
    parameters = list(inspect.signature(found).parameters.values())[1:]
    options = tuple(one.name for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD)
    fits_on = (reads, "labels") if found.requires_fit else ()
    return DetectorKind("pytorch_ood", options, f"pytorch-ood's {name}", fits_on, (reads,))


def fit(outputs: "Outputs", *, name: str, **options: Any) -> Peer:
    """Make the object and fit it; options: what its class takes beside the network."""
    kind, found = kind_of(name), _class_of(name)
    parameters = list(inspect.signature(found).parameters.values())[1:]
    for option, value in options.items():
        if option not in kind.options:
            raise InputError(
                f"`{option}` must be an option of the detector 'pytorch-ood:{name}'; got {option}={value!r}. "
                f"{did_you_mean(option, kind.options) if kind.options else 'It takes no options.'}"
            )
    needed = [one.name for one in parameters if one.default is inspect.Parameter.empty and one.name in kind.options]
    missing = [option for option in needed if option not in options]
    if missing:
        raise InputError(
            f"`{missing[0]}` must be given for the detector 'pytorch-ood:{name}'; got none. Give it from Python: "
            f"fit_detector('pytorch-ood:{name}', ..., {missing[0]}=...)."
        )
    detector = found(None, **options)
    reads = kind.scores[0]
    if kind.fits_on:
        fitting = detector.fit_logits if reads == "logits" else detector.fit_features
        with torch.random.fork_rng(devices=[]):
            fitting(outputs.given(reads).float(), outputs.given("labels"))
    return Peer(name, detector, reads, dict(options))


def score(state: Peer, outputs: "Outputs") -> Float[Tensor, " n"]:
    """Higher is more out-of-distribution, as in pytorch-ood."""
    predict = state.detector.predict_logits if state.reads == "logits" else state.detector.predict_features
    with torch.no_grad():
        return predict(outputs.given(state.reads).float()).detach().cpu().double()


def describe(state: Peer) -> dict[str, Any]:
    """The options that are plain values."""
    return {key: value for key, value in state.options.items() if isinstance(value, bool | int | float | str)}


def _class_of(name: str) -> Any:
    try:
        from pytorch_ood import api
        from pytorch_ood import detector as detectors
    except ImportError:
        raise MissingDependencyError(
            f"`pytorch-ood:{name}` must have the library pytorch-ood. Install it: pip install 'diffident[ood]'."
        ) from None
    known = {key: value for key, value in vars(detectors).items() if inspect.isclass(value)}
    usable = [key for key, value in known.items() if issubclass(value, (api.LogitsDetector, api.FeaturesDetector))]
    if name in known and name not in usable:
        raise InputError(
            f"`detector` must read logits or features; got 'pytorch-ood:{name}', which needs the network. Use "
            "pytorch-ood with the network."
        )
    if name not in usable:
        raise InputError(f"`detector` must be a class of pytorch-ood; got {name!r}. {did_you_mean(name, usable)}")
    return known[name]


def _reads(found: Any) -> str:
    from pytorch_ood import api

    return "logits" if issubclass(found, api.LogitsDetector) else "features"
