"""ResNet-18 for 32x32 images, without any library of models."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from robustdml.models.embedder import Embedder, Layers
from robustdml.models.normalise import imagenet
from robustdml.models.small import at_least_one
from robustdml.models.wrapped import Normalised


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., arXiv:1512.03385)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k m n"]:
        """ReLU after the sum."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(y + self.downsample(x), inplace=True)


@dataclass(frozen=True)
class SmallResNet:
    """ResNet-18 for small images: a 3x3 stem and no pooling after it, from random weights.

    Eighteen layers, widths 64 to 512, pooled and followed by one linear layer and batch normalisation, without which
    all embeddings of rectified features begin in one direction, where triplets teach little. Trained with batch
    statistics. With `stride` 2 in the stem every layer has a quarter of the work.
    """

    dim: int = 512
    stride: int = 1

    def __post_init__(self) -> None:
        at_least_one(self)
        if self.stride not in (1, 2):
            raise ValueError(f"SmallResNet's stem has stride 1 or 2, got {self.stride}.")

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """For grey or colour images of at least 8x8, with stride 2 16x16; ImageNet's constants normalise them.

        Below that the last block convolves single pixels with stride 2, for whose weights PyTorch 2.13 returns
        uninitialised memory as the gradient in bfloat16 on a CPU.
        """
        channels, height, width = shape
        smallest = 8 * self.stride
        if channels not in (1, 3) or min(height, width) < smallest:
            raise ValueError(
                f"SmallResNet with stride {self.stride} needs grey or colour images of at least {smallest}x{smallest}, "
                f"got {channels} channels of {height}x{width}."
            )
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 3, self.stride, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        ]
        previous = 64
        for channels_out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [BasicBlock(previous, channels_out, stride), BasicBlock(channels_out, channels_out, 1)]
            previous = channels_out
        layers += [
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, self.dim, bias=False),
            nn.BatchNorm1d(self.dim),
        ]
        network = Layers(self.dim, *layers)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return Normalised(imagenet(), network, self.dim)
