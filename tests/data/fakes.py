"""Tiny data sets in the layouts of the published ones."""

import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image
from scipy.io import savemat

from robustdml.data import Cars, Cifar10, Cifar100, Cifar100Subset, Cub, ImageNet, Omniglot, OmniglotSmall, Sop
from robustdml.data.transforms import CentreCrop, RandomCrop

SMALL = {"train": RandomCrop(6, 8), "test": CentreCrop(6, 8)}
CUB = Cub(**SMALL, expected=(6, 4, 3, 2))
CARS = Cars(**SMALL, expected=(4, 6, 2, 3))
SOP = Sop(**SMALL, expected=(5, 4, 2, 2))
CIFAR10 = Cifar10(expected=(10, 4, 2, 2))
CIFAR100 = Cifar100(expected=(6, 3, 3, 3))
SUBSET = Cifar100Subset(expected=(4, 6, 2, 2))
OMNIGLOT = Omniglot(expected=(8, 4, 4, 2))
OMNIGLOT_SMALL = OmniglotSmall(expected=(4, 4, 2, 2))
IMAGENET = ImageNet(**SMALL, expected=(6, 3, 3, 3))


def picture(path, number=0, size=(9, 7), **options):
    """A file of one colour and some noise, told apart by its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path, **options)
    return path


def cub(root, *, lists=True, order=None):
    """Five species of two images; ids count from 1 in the order of the folders unless `order` says otherwise."""
    place = root / "CUB_200_2011"
    paths = [f"{c + 1:03d}.Bird_{c + 1}/b_{c + 1}_{i}.jpg" for c in range(5) for i in range(2)]
    for number, path in enumerate(paths):
        picture(place / "images" / path, number)
    if lists:
        ids = order or range(1, len(paths) + 1)
        listed = list(zip(ids, paths))
        (place / "images.txt").write_text("".join(f"{i} {path}\n" for i, path in listed))
        (place / "image_class_labels.txt").write_text("".join(f"{i} {int(path[:3])}\n" for i, path in reversed(listed)))
    return place


def cars(root, folder="cars", names=True):
    """Five models of two images, listed out of order."""
    place = root / folder
    paths = [f"car_ims/{i + 1:06d}.jpg" for i in range(10)]
    for number, path in enumerate(paths):
        picture(place / path, number)
    kind = [(name, "O") for name in ("relative_im_path", "x1", "y1", "x2", "y2", "class", "test")]
    records = [(path, 1, 1, 5, 5, 1 + i // 2, 1 - i % 2) for i, path in enumerate(paths)]
    more = {"class_names": np.array([f"Car {i}" for i in range(5)], dtype=object)} if names else {}
    savemat(place / "cars_annos.mat", {"annotations": np.array([records[::-1]], dtype=kind), **more})
    return place


def sop(root, folder="Stanford_Online_Products"):
    """Four things: three and two images for training, two and two for tests; ids out of order."""
    place = root / folder
    halves = {"train": [(1, 1), (3, 1), (2, 1), (5, 2), (4, 2)], "test": [(8, 3), (6, 3), (7, 4), (9, 4)]}
    for half, images in halves.items():
        lines = ["image_id class_id super_class_id path"]
        for number, thing in images:
            path = f"{'chair' if thing % 2 else 'table'}_final/{thing}_{number}.JPG"
            picture(place / path, number)
            lines.append(f"{number} {thing} 1 {path}")
        (place / f"Ebay_{half}.txt").write_text("\n".join(lines) + "\n")
    return place


def rows(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def python_2(value):
    """A pickle as Python 2 and numpy of that time wrote it, in which the published files are: text is bytes."""

    def text(content):
        return b"T" + struct.pack("<I", len(content)) + content

    def written(value):
        if isinstance(value, dict):
            return b"}(" + b"".join(written(k) + written(v) for k, v in value.items()) + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(written, value)) + b"e"
        if isinstance(value, np.ndarray):
            made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
            kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xff"
            kind += b"J\xff\xff\xff\xffK\x00tb"
            shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in value.shape) + b"t"
            return made + b"(K\x01" + shape + kind + b"\x89" + text(value.tobytes()) + b"tb"
        return b"J" + struct.pack("<i", value) if isinstance(value, int) else text(value.encode("latin-1"))

    return b"\x80\x02" + written(value) + b"."


def write_pickle(path, value, protocol=2):
    """As this Python writes it, or for protocol 0 as Python 2 did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol) if protocol else python_2(value))


def cifar10(root, protocol=0):
    """Five batches of two images, and four test images."""
    place = root / "cifar-10-batches-py"
    for i in range(1, 6):
        value = {"batch_label": "b", "labels": [0, 1], "data": rows(2, i), "filenames": ["a.png", "b.png"]}
        write_pickle(place / f"data_batch_{i}", value, protocol)
    write_pickle(place / "test_batch", {"labels": [1, 0, 1, 0], "data": rows(4, 9)}, protocol)
    write_pickle(place / "batches.meta", {"label_names": ["cat", "dog"], "num_vis": 3072}, protocol)
    return place


def cifar100(root):
    place = root / "cifar-100-python"
    for half, count in (("train", 6), ("test", 3)):
        labels = [i % 3 for i in range(count)]
        write_pickle(place / half, {"fine_labels": labels, "coarse_labels": labels, "data": rows(count)})
    write_pickle(place / "meta", {"fine_label_names": ["apple", "bear", "cup"], "coarse_label_names": ["x"]})
    return place


def class_folders(place, halves, classes, size=(32, 32), suffix="png"):
    for half, count in halves.items():
        for c, name in enumerate(classes):
            for i in range(count):
                picture(place / half / name / f"{name}_{i}.{suffix}", 100 * c + i, size)
    return place


def subset(root):
    """Four classes, the first two of which train."""
    return class_folders(root / "cifar100-250", {"train": 2, "test": 3}, ("apple", "bear", "cup", "dog"))


def imagenet(root, folder="ILSVRC/Data/CLS-LOC", val="val"):
    return class_folders(root / folder, {"train": 2, val: 1}, ("n01", "n02", "n03"), (10, 8), "JPEG")


def omniglot(root, small=False):
    """Two alphabets of two characters train; the second set has one alphabet more."""
    names = ("images_background_small1", "images_background_small2") if small else (
        "images_background", "images_evaluation")  # fmt: skip
    alphabets = (("Latin",), ("Latin", "Greek")) if small else (("Latin", "Greek"), ("Futurama",))
    for name, listed in zip(names, alphabets):
        for a, alphabet in enumerate(listed):
            for c in range(2):
                for i in range(2):
                    path = root / "omniglot" / name / alphabet / f"character0{c + 1}" / f"{c}_{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    drawing = np.ones((105, 105), bool)
                    drawing[10 * a : 10 * a + 20, 20 * c : 20 * c + 5 + i] = False
                    Image.fromarray(drawing).save(path)
    return root / "omniglot"


FAKES = {
    "cub": (CUB, cub), "cars": (CARS, cars), "sop": (SOP, sop), "cifar10": (CIFAR10, cifar10),
    "cifar100": (CIFAR100, cifar100), "cifar100-250": (SUBSET, subset), "imagenet": (IMAGENET, imagenet),
    "omniglot": (OMNIGLOT, omniglot), "omniglot-small": (OMNIGLOT_SMALL, lambda root: omniglot(root, small=True)),
}  # fmt: skip
"""Name → (the data set with the counts of its stand-in, what writes the stand-in below a data root)."""


def packed(archive, place, top=None):
    """A zip or tar archive of a folder."""
    files = sorted(p for p in place.rglob("*") if p.is_file())
    name = place.name if top is None else top
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as pack:
            for file in files:
                pack.write(file, f"{name}/{file.relative_to(place)}")
    else:
        with tarfile.open(archive, "w:gz") as pack:
            for file in files:
                pack.add(file, f"{name}/{file.relative_to(place)}")
    return archive


def add_to_tar(archive, name, content=b"x", **fields):
    """An uncompressed tar archive with one more entry of any kind."""
    with tarfile.open(archive, "a") as pack:
        info = tarfile.TarInfo(name)
        info.size = len(content) if "type" not in fields else 0
        for key, value in fields.items():
            setattr(info, key, value)
        pack.addfile(info, io.BytesIO(content))
