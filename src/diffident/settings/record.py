"""The record of all settings, checked when it is made."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from diffident.losses import LOSSES
from diffident.settings.checks import loss_faults, raise_faults, value_faults
from diffident.settings.defaults import (
    defaults_of_loss,
    defaults_of_model,
    finds_features_in_images,
    is_fine_tuned,
    is_on_features,
    learns_in_few_epochs,
    options_of_loss,
)


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides what a run computes, besides the data.

    Attributes:
        model: A name of `MODELS`, or a prefix of `MODEL_PREFIXES` and a name.
        loss: A key of `LOSSES`.
        preset: Values of the loss's options by name: `paper` is alpha 0.3, temperature 0.7, normalizer none and
            distrust false of `difficulty-aware`. What is set beside it wins. `none` takes the loss's own defaults.
        alpha: Strength of what the loss adds to cross-entropy; of difficulty-temperature, how far the temperature
            falls; of mixup and regmixup, of the Beta distribution. None of these numbers of losses means that the
            loss's own default is taken, or that it takes no such number.
        doubt: How unsure `difficulty-aware` lets the hardest sample be, from 0 to 0.99, where alpha is not given. None
            learns it from validation data, see `docs/method.md`; where there are none, it is 0.1, or 0.4 of `mlp`.
            Learnt, it is 4 in the first epochs of `mlp` and `ngrams`, without `patience` and with 900 steps to follow.
        others: How much the entropy among the classes beside the label counts in the bonus of `difficulty-aware`, from
            0 to 1. Without an alpha it is 0.2 for `mlp` and pre-trained models, and 1 for `ngrams`, as it is with one;
            None, of the other models, is 1, and where doubt is learnt it falls to 0.2, and the weights' temperature to
            0.3, as doubt rises from 0.4 to 0.6.
        temperature: Of the weights made of difficulty, 0.3 for `mlp` and pre-trained models, else 0.7; of `logit-norm`,
            of the logits.
        normalizer: Of the difficulty, before it becomes weights; auto is the preset's, or rank.
        distrust: Whether the difficulty table's word counts which labels are not to be believed; None is the preset's,
            or true.
        relabel: Whether samples whose labels are not believed learn the likely label of the difficulty table, instead
            of being left out; None is true, if distrust is, for losses with difficulty and `cnn-small`, the 32-pixel
            networks, and timm and torchvision models that are not pre-trained.
        curriculum: Share of the epochs, at their beginning, in which losses with difficulty see easy samples first: of
            each class the easiest 15 % in the first epoch, evenly more in each, and then all, as in the last epoch; for
            good as soon as training accuracy is more than 0.2 above validation accuracy. An epoch has as many steps as
            without, so that samples are seen several times in it while they are few. 0 shows all from the first. None
            is 0.5 where doubt is learnt from validation data and images are augmented, of the models that relabel by
            default, if none of mixup, soft_targets, dynamics and patience is set, normalizer is not none and samples
            differ in difficulty; else 0.
        soft_targets: Share of what losses with difficulty learn of a sample that is the probabilities of the classes in
            the difficulty table, and not its label; 0 is the label alone. The table must be of `posterior`.
        restart: Whether training begins anew from its first weights, once, if the model learns its labels by heart:
            when training accuracy is more than 0.1 above the best validation accuracy, after three epochs or a tenth of
            all, whichever is more, up to half of them, and with five left at least. Those that are left have `mixup` 1,
            `mixup_until` 0.8 and `soft_targets` 0.5. None is true where doubt is learnt and probabilities are in the
            difficulty table, of the models that relabel by default, if none of mixup, soft_targets and dynamics is set.
            While a curriculum holds samples back training does not begin anew.
        smoothing: Of the labels.
        gamma: Power of the focal losses.
        gamma_low: Of `flsd`, for labels of low probability.
        epsilon: Of `poly`.
        margin: Between logits, of `mbls`.
        eta: What a mixture counts beside a sample, of `regmixup`.
        num_bins: Of `soft-ece`.
        bin_temperature: Of `soft-ece`.
        mixup: Alpha of the Beta distribution by which the samples of a batch are mixed in pairs, with any loss that
            looks at each sample by itself; 0 mixes nothing. The losses mixup and regmixup have their own alpha.
        mixup_until: Share of the epochs, at their beginning, in which `mixup` mixes. Where that is not all of them,
            `patience` counts after them.
        epochs: Passes over the data; 0 takes the model's default.
        batch_size: Samples a step; a last batch of one sample joins the one before.
        learning_rate: Peak rate; 0 takes the model's default.
        weight_decay: Decoupled for adamw; -1 takes the model's default.
        optimizer: adamw or sgd (Nesterov momentum 0.9).
        schedule: cosine (to zero), constant, step, or one-cycle (from a 25th up to the peak, then down to nearly zero).
        warmup: Fraction of all steps with a rising rate; -1 takes the schedule's own: 0.3 of one-cycle, else 0.05.
        milestones: Fractions of all steps after which the rate is multiplied (schedule `step`).
        step_factor: What the rate is multiplied with there.
        accumulation: Parts of a batch that go through the model one after another, to save memory; its gradient is
            that of the whole, but for batch norm and dropout.
        clip_norm: Largest norm of all gradients together; 0 is none.
        ema: Decay of the moving average of the weights, which is validated and kept in their stead; 0 is none.
        patience: Epochs without a lower validation loss after which training ends and the best weights are kept; 0 is
            none.
        augment: none, crop-flip (images), or auto (crop-flip for RGB images of 16 px and more).
        seed: Of initial weights, order, dropout and augmentation.
        device: auto, cpu, cuda or mps.
        devices: Processes that share every batch: GPUs, or processes on the CPU. Batch norm counts all of a batch.
        precision: As Lightning Fabric names it.
        compile: Whether torch.compile makes the model faster.
        channels_last: Whether images lie in memory with their channels last, which convolutions may like better.
        loading: memory (everything is prepared first), workers (images are read for every batch), or auto: memory where
            images take at most half of it. The result is the same.
        num_workers: Processes that read images for batches.
        loggers: Beside metrics.jsonl: csv, tensorboard, wandb, mlflow.
        image_size: Side in pixels to which images are resized; 0 takes the size that a model of timm, torchvision
            or transformers was made for, else the data's: 64 x 64 where the first image is larger.
        width: Channels of the first stage, hidden units, or the growth of densenet-bc; 0 takes the model's default.
        dropout: Before the linear layers (ngrams), after the hidden ones (mlp) or in the blocks (wrn-28-10); -1 takes
            the model's default.
        min_count: Texts that a 1-2-gram must occur in (ngrams).
        max_length: Largest number of grams or tokens kept of a text.
        pretrained: Whether timm, torchvision and transformers models start from downloaded weights.
        dynamics: Whether every epoch writes what it saw of every training sample, for `score --method
            training-dynamics`; the weights are the same with and without.
    """

    model: str
    loss: str = "cross-entropy"
    preset: str = "none"
    alpha: float | None = None
    doubt: float | None = None
    others: float | None = None
    temperature: float | None = None
    normalizer: str = "auto"
    distrust: bool | None = None
    relabel: bool | None = None
    curriculum: float | None = None
    soft_targets: float = 0.0
    restart: bool | None = None
    smoothing: float | None = None
    gamma: float | None = None
    gamma_low: float | None = None
    epsilon: float | None = None
    margin: float | None = None
    eta: float | None = None
    num_bins: int | None = None
    bin_temperature: float | None = None
    mixup: float = 0.0
    mixup_until: float = 1.0
    epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 0.0
    weight_decay: float = -1.0
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = -1.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    step_factor: float = 0.1
    accumulation: int = 1
    clip_norm: float = 0.0
    ema: float = 0.0
    patience: int = 0
    augment: str = "none"
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    compile: bool = False
    channels_last: bool = False
    loading: str = "auto"
    num_workers: int = 2
    loggers: tuple[str, ...] = ()
    image_size: int = 0
    width: int = 0
    dropout: float = -1.0
    min_count: int = 2
    max_length: int = 512
    pretrained: bool = True
    dynamics: bool = False

    def __post_init__(self):
        warmup = 0.3 if self.schedule == "one-cycle" else 0.05
        of_loss = defaults_of_loss(self.loss, self.preset, vars(self))
        defaults = {"dropout": 0.0, "warmup": warmup, **defaults_of_model(self.model), **of_loss}
        fields = {field.name: field for field in dataclasses.fields(self)}
        given = {name: value for name, value in vars(self).items() if value != fields[name].default}
        object.__setattr__(self, "_given", given)
        for name, field in fields.items():
            if name in defaults and getattr(self, name) == field.default:
                object.__setattr__(self, name, defaults[name])
        values = dataclasses.asdict(self)
        faults = [fault for key, value in values.items() for fault in value_faults(fields[key], value)]
        raise_faults(faults or loss_faults(values, fields))
        if self.curriculum is None and not self._may_begin_easy:
            object.__setattr__(self, "curriculum", 0.0)

    def changed(self, **changes: Any) -> "TrainingSettings":
        """The settings with some set otherwise; those never given take the defaults that go with the changes.

        `dataclasses.replace` keeps them as they are, so that they count as given from then on.

        Example:
            >>> TrainingSettings("mlp", "difficulty-aware").changed(alpha=0.1).others  # was 0.2, which goes with doubt
            1.0
        """
        return TrainingSettings(**{**vars(self)["_given"], **changes})

    @property
    def learns(self) -> str | None:
        """Name of the loss's option that training learns from validation data, if it was left to that."""
        kind = LOSSES[self.loss]
        if kind.learnt is None or getattr(self, kind.learnt) is not None:
            return None
        return None if kind.resolved(**self.loss_options)[kind.learnt] is None else kind.learnt

    @property
    def leaves_others_open(self) -> bool:
        """Whether training says how much the entropy among the other classes counts, epoch by epoch."""
        return "others" in LOSSES[self.loss].options and self.others is None

    @property
    def may_begin_unsure(self) -> bool:
        """Whether training that learns doubt begins with the highest, if it is long enough.

        Not where it may end early: in those epochs the validation loss says little.
        """
        return learns_in_few_epochs(vars(self)) and not self.patience

    @property
    def may_restart(self) -> bool:
        """Whether training begins anew if the model learns its labels by heart, where validation data tell it."""
        if self.restart is not None:
            return self.restart
        return self._is_plain

    @property
    def _may_begin_easy(self) -> bool:
        return self._is_plain and self.augment != "none" and self.normalizer != "none" and not self.patience

    @property
    def _is_plain(self) -> bool:
        """Whether doubt is learnt by a network from scratch on images, and nothing else is set that changes much."""
        other = self.mixup or self.soft_targets or self.dynamics
        return bool(self.learns) and finds_features_in_images(vars(self)) and not other

    @property
    def heeds_validation(self) -> str | None:
        """Name of a setting that makes training look at validation data, beside `patience`; None if there is none."""
        heeding = {"curriculum": self.curriculum, "restart": self.may_restart}
        return self.learns or next((name for name, value in heeding.items() if value), None)

    @property
    def sees_features(self) -> bool:
        """Whether the model sees an encoder's features."""
        return is_on_features(vars(self))

    @property
    def fine_tunes(self) -> bool:
        """Whether the model starts from pre-trained weights."""
        return is_fine_tuned(vars(self))

    @property
    def loss_options(self) -> dict[str, float]:
        """The options that the loss takes."""
        return options_of_loss(self.loss, vars(self))
