"""BN-Inception: the Inception network with batch normalisation (Ioffe and Szegedy, arXiv:1502.03167, figure 5).

The table of the paper prints an output width of 576 for modules 4c and 4d and of 1024 for 4e, while its columns add up
to 608, 608 and 1056. The columns are what the authors' network has; so has this one. Layers are called as in the public
conversion of the Caffe model (`inception_3a_1x1`, `inception_3a_1x1_bn`, `last_linear`), so that its weights fit.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Block:
    """One row of the table: widths of the branches.

    Args:
        one: 1x1 branch; 0 for the modules that halve the resolution, which have neither it nor a projection.
        pool: of the pooling branch, "average" or "max".
    """

    one: int
    three_reduce: int
    three: int
    double_reduce: int
    double: int
    projection: int
    pool: str = "average"

    @property
    def stride(self) -> int:
        """2 for the modules without a 1x1 branch."""
        return 1 if self.one else 2

    def width(self, channels: int) -> int:
        """Channels it returns: the pooled input passes through where nothing projects it."""
        return self.one + self.three + self.double + (self.projection or channels)


BLOCKS = {
    "3a": Block(64, 64, 64, 64, 96, 32),
    "3b": Block(64, 64, 96, 64, 96, 64),
    "3c": Block(0, 128, 160, 64, 96, 0, "max"),
    "4a": Block(224, 64, 96, 96, 128, 128),
    "4b": Block(192, 96, 128, 96, 128, 128),
    "4c": Block(160, 128, 160, 128, 160, 128),
    "4d": Block(96, 128, 192, 160, 192, 128),
    "4e": Block(0, 128, 192, 192, 256, 0, "max"),
    "5a": Block(352, 192, 320, 160, 224, 128),
    "5b": Block(352, 192, 320, 192, 224, 128, "max"),
}
DIVISOR = 32
"""Sides that are no multiple of it give the branches of a halving module different sizes."""


class BnInception(nn.ModuleDict):
    """BN-Inception with one linear layer of `num_classes` outputs on the pooled features; identity for 0."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self._unit("conv1_7x7_s2", 3, 64, 7, 2)
        self._unit("conv2_3x3_reduce", 64, 64, 1)
        self._unit("conv2_3x3", 64, 192, 3)
        channels = 192
        for name, m in BLOCKS.items():
            at = f"inception_{name}"
            if m.one:
                self._unit(f"{at}_1x1", channels, m.one, 1)
            self._unit(f"{at}_3x3_reduce", channels, m.three_reduce, 1)
            self._unit(f"{at}_3x3", m.three_reduce, m.three, 3, m.stride)
            self._unit(f"{at}_double_3x3_reduce", channels, m.double_reduce, 1)
            self._unit(f"{at}_double_3x3_1", m.double_reduce, m.double, 3)
            self._unit(f"{at}_double_3x3_2", m.double, m.double, 3, m.stride)
            if m.projection:
                self._unit(f"{at}_pool_proj", channels, m.projection, 1)
            channels = m.width(channels)
        self["last_linear"] = nn.Linear(channels, num_classes) if num_classes else nn.Identity()

    def _unit(self, name: str, channels: int, width: int, side: int, stride: int = 1) -> None:
        self[name] = nn.Conv2d(channels, width, side, stride, padding=side // 2)
        self[name + "_bn"] = nn.BatchNorm2d(width)

    def _apply_unit(self, name: str, x: Tensor) -> Tensor:
        return F.relu(self[name + "_bn"](self[name](x)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Of images as `normalise.inception_bn` makes them."""
        x = _halved(self._apply_unit("conv1_7x7_s2", x))
        x = _halved(self._apply_unit("conv2_3x3", self._apply_unit("conv2_3x3_reduce", x)))
        for name, m in BLOCKS.items():
            x = self._module(f"inception_{name}", m, x)
        return self["last_linear"](F.adaptive_avg_pool2d(x, 1).flatten(1))

    def _module(self, at: str, m: Block, x: Tensor) -> Tensor:
        branches = [self._apply_unit(f"{at}_1x1", x)] if m.one else []
        branches.append(self._apply_unit(f"{at}_3x3", self._apply_unit(f"{at}_3x3_reduce", x)))
        double = self._apply_unit(f"{at}_double_3x3_1", self._apply_unit(f"{at}_double_3x3_reduce", x))
        branches.append(self._apply_unit(f"{at}_double_3x3_2", double))
        if m.stride == 2:
            branches.append(_halved(x))
        else:
            around = F.avg_pool2d if m.pool == "average" else F.max_pool2d
            branches.append(self._apply_unit(f"{at}_pool_proj", around(x, 3, stride=1, padding=1)))
        return torch.cat(branches, dim=1)


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, ceil_mode=True)
