"""Models to train, and the preprocessing that turns a data set into one tensor."""

from diffident.models.networks import build_model
from diffident.models.preprocessing import Preprocessor, fit_preprocessor, fits_in_memory, load_preprocessor

__all__ = ["Preprocessor", "build_model", "fit_preprocessor", "fits_in_memory", "load_preprocessor"]
