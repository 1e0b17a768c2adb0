"""Data sets, where their files come from, and how batches are composed of them."""

from robustdml.data.batches import Batches, ClassBatches, Spc2, TripletBatches
from robustdml.data.cars import Cars
from robustdml.data.cifar import Cifar10, Cifar100
from robustdml.data.cifar_subset import Cifar100Subset
from robustdml.data.cub import Cub
from robustdml.data.digits import Digits
from robustdml.data.errors import DataError
from robustdml.data.folder import Folder
from robustdml.data.idx import Fashion, Mnist
from robustdml.data.imagenet import ImageNet
from robustdml.data.images import ImageSet, Split
from robustdml.data.omniglot import Omniglot, OmniglotSmall
from robustdml.data.sop import Sop
from robustdml.data.table import DATASETS, Dataset, dataset, describe, download, unpack

__all__ = [
    "DATASETS", "Batches", "Cars", "Cifar10", "Cifar100", "Cifar100Subset", "ClassBatches", "Cub", "DataError",
    "Dataset", "Digits", "Fashion", "Folder", "ImageNet", "ImageSet", "Mnist", "Omniglot", "OmniglotSmall", "Sop",
    "Spc2", "Split", "TripletBatches", "dataset", "describe", "download", "unpack",
]  # fmt: skip
