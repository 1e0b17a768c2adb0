"""Input normalisation, always inside the embedder so that attacks work on pixels in [0, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std per channel, optionally followed by RGB to BGR.

    Args:
        mean, std: one number per channel, in units of [0, 1].
        bgr: reverses the channels afterwards, as Caffe models expect.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], bgr: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.bgr = bgr

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise pixels in [0, 1]."""
        x = (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)
        return x.flip(1) if self.bgr else x

    def inverse(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Back to pixels."""
        x = x.flip(1) if self.bgr else x
        return x * self.std.to(x.dtype) + self.mean.to(x.dtype)


def imagenet() -> Normalise:
    """The constants of torchvision's ImageNet models."""
    return Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def inception_bn() -> Normalise:
    """The constants of the Caffe BN-Inception: 0-255 BGR minus (104, 117, 128), with 1/255 rounded to 0.0039."""
    return Normalise((0.502, 0.4588, 0.4078), (0.0039, 0.0039, 0.0039), bgr=True)
