"""What a recipe says, as frozen records."""

from dataclasses import dataclass, field
from typing import Any

from diffident.difficulties import METHODS

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataSpec:
    """Where the data are, relative to `--data`; `FILE[first:last:step]` takes some rows, `FILE[!::step]` the others.

    Attributes:
        train: Training data.
        validation: Temperatures are fitted, and strengths chosen, on it alone.
        test: What is reported.
        ood: Out-of-distribution sets by name; labels that they may have are not looked at.
        extra: Further labelled sets by name; their classes are joined to the training data's by name, and only the
            logits of their own classes are compared.
        label_column: Of the training labels; validation and test keep their own.
        limit: Only so many training samples, evenly spaced.
        inputs: `samples`, or `features`: the model gets the encoder's features.
    """

    train: str
    validation: str
    test: str
    ood: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    label_column: str | None = None
    limit: int | None = None
    inputs: str = "samples"


@dataclass(frozen=True)
class DifficultySpec:
    """Where the difficulty of training samples comes from.

    Attributes:
        encoder: Of the features.
        image_size: Side in pixels that images are resized to for it, or None for its own; that of the recipe's encoder
            is not taken for another.
        method: A difficulty method.
        options: Of the method.
        shuffle: Whether samples get the weights of random others, by the run's seed.
        shuffle_within_class: The same within each class.
        invert: Whether easy samples count as hard.
        constant: Whether all samples are equally hard, and all labels believed.
        of_believed: Whether these four touch believed samples alone; what happens to the others stays the same.
    """

    encoder: str | None = None
    image_size: int | None = None
    method: str = "rmd"
    options: dict[str, Any] = field(default_factory=dict)
    shuffle: bool = False
    shuffle_within_class: bool = False
    invert: bool = False
    constant: bool = False
    of_believed: bool = False

    @property
    def needs_dynamics(self) -> bool:
        """Whether the method looks at a training run instead of features."""
        return METHODS[self.method].needs == "dynamics"


@dataclass(frozen=True)
class DataChange:
    """What is done to the training data, by the run's seed where chance is in it.

    Attributes:
        limit: Only so many samples, evenly spaced.
        imbalance: Largest over smallest class, of sizes that fall geometrically with the class number.
        label_noise: Share of the labels that become another class.
    """

    limit: int | None = None
    imbalance: float | None = None
    label_noise: float | None = None


@dataclass(frozen=True)
class EnsembleSpec:
    """The mean probabilities of several runs of a method.

    Attributes:
        of: The method.
        members: Runs that are averaged: for seed number s those of the seeds s, s + 1, ..., counted round the end.
    """

    of: str
    members: int


@dataclass(frozen=True)
class SweepPoint:
    """Where a method stands in a sweep: the sweep's name, what varies, its value there, and the method that varies."""

    sweep: str
    vary: str
    value: Any
    method: str


@dataclass(frozen=True)
class Method:
    """What is trained once for every seed.

    Attributes:
        name: As in tables, and of its folder.
        loss: A loss of the library; empty for an ensemble.
        options: Settings that differ from `[training]`, the loss's own among them.
        difficulty: For losses that need weights.
        data: What is done to the training data.
        like: Method whose loss, options and chosen strength it takes; its own options win.
        tune: Option to candidate values, of which validation data choose.
        ensemble: What is averaged instead of trained.
        point: Its place in a sweep.
    """

    name: str
    loss: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    difficulty: DifficultySpec = field(default_factory=DifficultySpec)
    data: DataChange = field(default_factory=DataChange)
    like: str | None = None
    tune: dict[str, list] = field(default_factory=dict)
    ensemble: EnsembleSpec | None = None
    point: SweepPoint | None = None

    @property
    def role(self) -> str:
        """`ensemble`, `ablation`, `control` (what another method is made like) or `loss`."""
        if self.ensemble is not None:
            return "ensemble"
        if self.point is not None:
            return "ablation"
        return "control" if self.like is not None else "loss"


@dataclass(frozen=True)
class Corruptions:
    """Versions of the test data that every run is measured on; no kinds are none, unless `all`.

    Attributes:
        kinds: Corruptions; `("all",)` are all of the modality.
        severities: Of 1 to 5.
        limit: Only so many test samples, evenly spaced.
    """

    kinds: tuple[str, ...] = ()
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    limit: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes:
        name: The file's, without the ending.
        title: One line for the documents.
        data: Where the data are.
        difficulty: Of methods that say nothing else.
        training: Settings of every run.
        seeds: Number of seeds; they are 0, 1, ...
        baseline: Method that all are compared with.
        ours: Method that is compared with all.
        methods: By name, in the order of the file.
        tuning_seed: Seed of the runs among which a strength is chosen.
        num_resamples: Of paired comparisons.
        corruptions: Of the test data.
    """

    name: str
    title: str
    data: DataSpec
    difficulty: DifficultySpec
    training: dict[str, Any]
    seeds: int
    baseline: str
    ours: str
    methods: dict[str, Method]
    tuning_seed: int = 1000
    num_resamples: int = 1000
    corruptions: Corruptions = field(default_factory=Corruptions)

    def source_of(self, method: Method) -> Method:
        """The method whose strength was chosen for this one: itself, or what it is like."""
        return self.methods[method.like] if method.like is not None else method
