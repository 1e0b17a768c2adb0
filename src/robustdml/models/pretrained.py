"""Published weights that a backbone can begin with, and where the networks that have some come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import load_file
from torch import Tensor, nn

from robustdml.models.embedder import Embedder
from robustdml.models.inception import DIVISOR, BnInception
from robustdml.models.normalise import Normalise, imagenet, inception_bn
from robustdml.models.small import Model
from robustdml.models.vision import import_timm, import_torchvision_models


@dataclass(frozen=True)
class Pretrained:
    """Published weights for a backbone to begin with; the layer that makes the embedding stays as initialised.

    Args:
        file: a local safetensors file that holds them under the names of timm (torchvision for MNASNet, the public
            Caffe conversion for BN-Inception); `None` downloads them.
    """

    file: str | None = None


@runtime_checkable
class Pretrainable(Model, Protocol):
    """A model for which weights are published."""

    def published(self, embedder: Embedder, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Published weights under the names of `embedder`, the layer that makes the embedding left out.

        Args:
            tensors: the content of a local file; `None` downloads them.

        Raises:
            ValueError: if there are none to download, they are not those of this network, or the download fails.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """Where a network comes from and what is published for it."""

    def side(self) -> int:
        """Of the square images its weights were made for."""
        ...

    def network(self, num_classes: int, side: int) -> nn.Module:
        """A freshly initialised network for square images of this side, with `num_classes` outputs (0: features)."""
        ...

    def normalise(self, network: nn.Module) -> Normalise:
        """What its weights expect of the input."""
        ...

    def download(self) -> dict[str, Tensor]:
        """The pinned weights."""
        ...

    def adapted(self, tensors: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
        """Weights of older releases under the names of this one."""
        ...


@dataclass(frozen=True)
class Timm:
    """A network of timm.

    Args:
        name: architecture and tag of the pinned weights, as in "resnet18.tv_in1k".
        options: what is not timm's default.
        era: whether the weights are those that papers of 2020 to 2022 began with.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    era: str = ""

    def side(self) -> int:
        """As timm says."""
        return import_timm().get_pretrained_cfg(self.name).input_size[1]

    def network(self, num_classes: int, side: int) -> nn.Module:
        """Through `create_model`, which makes head and pooling that fit each other.

        Raises:
            ValueError: if timm has no such model or tag, or it takes images of another size only.
        """
        timm = import_timm()
        if not timm.is_model(self.name):
            near = ", ".join(timm.list_models(f"*{self.name.split('.', maxsplit=1)[0][:6]}*")[:5])
            raise ValueError(f"timm has no model {self.name!r}. Perhaps: {near or 'see timm.list_models()'}.")
        try:
            network = timm.create_model(self.name, num_classes=num_classes, **self.options)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"timm cannot make {self.name!r}: {error}") from error
        if timm.get_pretrained_cfg(self.name).fixed_input_size and side != self.side():
            raise ValueError(
                f"{self.name} takes images of {self.side()}x{self.side()} only, got {side}x{side}. Use a data set of "
                f"that size (--data.image_size {self.side()} for a folder), or a network such as resnet18."
            )
        return network

    def normalise(self, network: nn.Module) -> Normalise:
        """The constants of its configuration."""
        known = import_timm().get_pretrained_cfg(self.name)
        return Normalise(tuple(known.mean), tuple(known.std))

    def download(self) -> dict[str, Tensor]:
        """From the Hugging Face hub, or its local cache; safetensors only."""
        known = import_timm().get_pretrained_cfg(self.name)
        if not known.hf_hub_id:
            raise ValueError(f"timm publishes no weights for {self.name}.")
        from huggingface_hub import hf_hub_download

        return load_file(hf_hub_download(known.hf_hub_id, "model.safetensors"))

    def adapted(self, tensors: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
        """Swin changed its names in timm 0.9; its own filter knows how."""
        if "swin" not in self.name or "head.fc.weight" in tensors:
            return tensors
        from timm.models.swin_transformer import checkpoint_filter_fn

        return checkpoint_filter_fn(dict(tensors), network)


@dataclass(frozen=True)
class Torchvision:
    """A network of torchvision, for MNASNet: timm's weights of it are of another training run, or missing.

    Args:
        name: of the builder.
        weights: of the enumeration that lists its weights.
    """

    name: str
    weights: str
    era: str = ""

    def side(self) -> int:
        """ImageNet's."""
        return 224

    def network(self, num_classes: int, side: int) -> nn.Module:
        """Without the dropout before its head."""
        network = import_torchvision_models().get_model(self.name, num_classes=max(1, num_classes), dropout=0.0)
        if num_classes == 0:
            network.classifier = nn.Identity()
        return network

    def normalise(self, network: nn.Module) -> Normalise:
        """ImageNet's constants."""
        return imagenet()

    def download(self) -> dict[str, Tensor]:
        """From PyTorch's server; read without executing anything."""
        weights = import_torchvision_models().get_weight(f"{self.weights}.IMAGENET1K_V1")
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)

    def adapted(self, tensors: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
        """As they are."""
        return tensors


@dataclass(frozen=True)
class Inception:
    """BN-Inception, which no maintained library has: our own network, weights from a local file only."""

    era: str = ""

    def side(self) -> int:
        """ImageNet's."""
        return 224

    def network(self, num_classes: int, side: int) -> nn.Module:
        """See `inception`.

        Raises:
            ValueError: for sides at which its branches do not meet.
        """
        if side % DIVISOR:
            raise ValueError(f"bninception needs images whose side is a multiple of {DIVISOR}, got {side}x{side}.")
        return BnInception(num_classes)

    def normalise(self, network: nn.Module) -> Normalise:
        """0-255 BGR, as Caffe had it."""
        return inception_bn()

    def download(self) -> dict[str, Tensor]:
        """There is no maintained place to download them from."""
        raise ValueError("no maintained library publishes weights of bninception.")

    def adapted(self, tensors: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
        """Scale and shift were saved as [1 c] in the first conversion; `fc` is an older name of the head."""
        flat = {n: t.flatten() if "_bn." in n and t.dim() == 2 else t for n, t in tensors.items()}
        return {n.replace("fc.", "last_linear.") if n.startswith("fc.") else n: t for n, t in flat.items()}


_TORCHVISION_INITIALISES = {"zero_init_last": False}
"""timm begins residual branches at zero; the published networks did not."""
_STOCHASTIC_DEPTH = {"drop_path_rate": 0.2}
"""That of the published EfficientNet, active in training."""
_THEN = "the weights papers of 2020 to 2022 began with"
_SIMILAR = "architecture and recipe of then; whether the very weights were is not known"
SOURCES: Mapping[str, Timm | Torchvision | Inception] = {
    "resnet18": Timm("resnet18.tv_in1k", _TORCHVISION_INITIALISES, _THEN),
    "resnet50": Timm("resnet50.tv_in1k", _TORCHVISION_INITIALISES, _THEN),
    "resnet101": Timm("resnet101.tv_in1k", _TORCHVISION_INITIALISES, _THEN),
    "resnet152": Timm("resnet152.tv_in1k", _TORCHVISION_INITIALISES, _THEN),
    "mnasnet0_5": Torchvision("mnasnet0_5", "MNASNet0_5_Weights", _THEN),
    "mnasnet1_0": Torchvision("mnasnet1_0", "MNASNet1_0_Weights", _THEN),
    "mnasnet1_3": Torchvision("mnasnet1_3", "MNASNet1_3_Weights", "published in 2022, after the papers"),
    "efficientnet_b0": Timm("tf_efficientnet_b0.aa_in1k", _STOCHASTIC_DEPTH, _SIMILAR),
    "efficientnet_b4": Timm("tf_efficientnet_b4.aa_in1k", _STOCHASTIC_DEPTH, _SIMILAR),
    "swin_tiny": Timm("swin_tiny_patch4_window7_224.ms_in1k", {}, _SIMILAR),
    "swin_small": Timm("swin_small_patch4_window7_224.ms_in1k", {}, _SIMILAR),
    "swin_base": Timm("swin_base_patch4_window7_224.ms_in22k_ft_in1k", {}, _SIMILAR),
    "swin_large": Timm("swin_large_patch4_window7_224.ms_in22k_ft_in1k", {}, _SIMILAR),
    "bninception": Inception("the public conversion of the Caffe model is what papers began with"),
}
"""Backbones by name, each with pinned weights."""


def fitted(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], head: set[str], name: str) -> dict[str, Tensor]:
    """Published weights, checked: every weight of the network but its head must be there in its shape.

    Counters of batches may be missing: files of old releases have none.

    Raises:
        ValueError: naming what does not fit.
    """
    wanted = {n: t for n, t in own.items() if n not in head}
    needed = [n for n in wanted if not n.endswith("num_batches_tracked")]
    missing = [n for n in needed if n not in tensors]
    shapes = [n for n in needed if n in tensors and tensors[n].shape != wanted[n].shape]
    if missing or shapes:
        first = (missing or shapes)[0]
        raise ValueError(
            f"the weights are not those of {name}: {len(missing)} of {len(needed)} tensors are missing and "
            f"{len(shapes)} have another shape (first {first}). Expected the names and shapes of "
            f"{_library(name)}."
        )
    return {n: tensors[n] for n in wanted if n in tensors}


def _library(name: str) -> str:
    source = SOURCES.get(name)
    if isinstance(source, Torchvision):
        return f"torchvision's {source.name}"
    return f"timm's {source.name if isinstance(source, Timm) else name}" if name != "bninception" else "our BnInception"


def downloaded(download: Callable[[], dict[str, Tensor]], name: str) -> dict[str, Tensor]:
    """The result of a download.

    Raises:
        ValueError: naming both ways out, if it fails.
    """
    try:
        return download()
    except ImportError:
        raise
    except Exception as error:  # hub, sockets and servers fail in many ways, none of them ours
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the published weights of {name} could not be downloaded ({type(error).__name__}: {reason}). Two ways "
            "out: run once on a machine with network and copy its cache (~/.cache/huggingface, ~/.cache/torch), or "
            f"give a local file (names of {_library(name)}): train with --start Pretrained --start.file "
            "WEIGHTS.safetensors, or measure WEIGHTS.safetensors with --recipe."
        ) from error
