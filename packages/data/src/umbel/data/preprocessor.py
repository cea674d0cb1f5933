"""What all preprocessors are, for who writes one. Those that there are: `umbel.data.preprocessors`."""

from __future__ import annotations

from umbel.data.preprocessors._base import FitStatus as FitStatus
from umbel.data.preprocessors._base import Preprocessor as Preprocessor
from umbel.data.preprocessors._base import PreprocessorNotFittedException as PreprocessorNotFittedException

__all__ = ["FitStatus", "Preprocessor", "PreprocessorNotFittedException"]
