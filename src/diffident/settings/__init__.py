"""Settings of a training run: from TOML, `key=value` and keywords; every fault is reported at once."""

from diffident.settings.defaults import MODEL_PREFIXES, MODELS
from diffident.settings.loading import load_settings, parse_value, settings_toml
from diffident.settings.record import TrainingSettings

__all__ = ["MODELS", "MODEL_PREFIXES", "TrainingSettings", "load_settings", "parse_value", "settings_toml"]
