"""Data sets, where their files come from, and how batches are composed of them."""

from robustdml.data.batches import Batches, ClassBatches, Spc2, TripletBatches
from robustdml.data.digits import Digits
from robustdml.data.errors import DataError
from robustdml.data.folder import Folder
from robustdml.data.idx import Fashion, Mnist
from robustdml.data.images import ImageSet, Split
from robustdml.data.table import DATASETS, Dataset, dataset, describe

__all__ = [
    "DATASETS", "Batches", "ClassBatches", "DataError", "Dataset", "Digits", "Fashion", "Folder", "ImageSet", "Mnist",
    "Spc2", "Split", "TripletBatches", "dataset", "describe",
]  # fmt: skip
