"""Preprocessors: what is learned of a dataset by one pass, and then done to datasets and to single batches alike.

scaler = preprocessors.StandardScaler(["age"]).fit(train)
scaler.transform(test)
scaler.transform_batch({"age": np.array([31.0])})

All have the methods of `umbel.data.preprocessor.Preprocessor`. Where `has_inverse` is true there is `inverse_transform(ds)` too,
and `inverse_transform_batch(batch)`: they make the input columns of the output columns again. Each says below what it makes;
`columns` are the names of what it reads, and `output_columns` of what it makes: as many, by default the same, which then take the
place of what was read.
"""

from __future__ import annotations

from umbel.data.preprocessors._categories import CategoricalDtype as CategoricalDtype
from umbel.data.preprocessors._chain import Chain as Chain
from umbel.data.preprocessors._concatenating import Concatenator as Concatenator
from umbel.data.preprocessors._discretizing import CustomKBinsDiscretizer as CustomKBinsDiscretizer
from umbel.data.preprocessors._discretizing import UniformKBinsDiscretizer as UniformKBinsDiscretizer
from umbel.data.preprocessors._encoding import Categorizer as Categorizer
from umbel.data.preprocessors._encoding import LabelEncoder as LabelEncoder
from umbel.data.preprocessors._encoding import MultiHotEncoder as MultiHotEncoder
from umbel.data.preprocessors._encoding import OneHotEncoder as OneHotEncoder
from umbel.data.preprocessors._encoding import OrdinalEncoder as OrdinalEncoder
from umbel.data.preprocessors._imputing import SimpleImputer as SimpleImputer
from umbel.data.preprocessors._normalizing import Normalizer as Normalizer
from umbel.data.preprocessors._power import PowerTransformer as PowerTransformer
from umbel.data.preprocessors._scaling import MaxAbsScaler as MaxAbsScaler
from umbel.data.preprocessors._scaling import MinMaxScaler as MinMaxScaler
from umbel.data.preprocessors._scaling import RobustScaler as RobustScaler
from umbel.data.preprocessors._scaling import StandardScaler as StandardScaler
from umbel.data.preprocessors._texts import CountVectorizer as CountVectorizer
from umbel.data.preprocessors._texts import FeatureHasher as FeatureHasher
from umbel.data.preprocessors._texts import HashingVectorizer as HashingVectorizer
from umbel.data.preprocessors._texts import Tokenizer as Tokenizer
from umbel.data.preprocessors._torchvision import TorchVisionPreprocessor as TorchVisionPreprocessor

__all__ = [
    "CategoricalDtype",
    "Categorizer",
    "Chain",
    "Concatenator",
    "CountVectorizer",
    "CustomKBinsDiscretizer",
    "FeatureHasher",
    "HashingVectorizer",
    "LabelEncoder",
    "MaxAbsScaler",
    "MinMaxScaler",
    "MultiHotEncoder",
    "Normalizer",
    "OneHotEncoder",
    "OrdinalEncoder",
    "PowerTransformer",
    "RobustScaler",
    "SimpleImputer",
    "StandardScaler",
    "Tokenizer",
    "TorchVisionPreprocessor",
    "UniformKBinsDiscretizer",
]
