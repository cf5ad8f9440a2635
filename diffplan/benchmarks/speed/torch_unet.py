"""The temporal U-Net of `diffplan.models.temporal_unet` in eager PyTorch, as its peers run it; used by `unet` only.

It is written from the same description (Janner et al. 2022) with `torch.nn` layers on ``x[n, d, h]``. Its submodules
carry the names of ours, so that `load` can copy our weights into it. Given the same input both give the same output.
Its sampler and training step are those of `diffplan.samplers.ancestral` and `diffplan.denoise.loss`, with data of unit
standard deviation: D(x, sigma) = x / v + sigma / sqrt(v) F(x / sqrt(v), log(sigma) / 4), v = sigma^2 + 1.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mish


class ConvBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, width: int, groups: int):
        super().__init__()
        self.conv = nn.Conv1d(c_in, c_out, width, padding=width // 2)
        self.norm = nn.GroupNorm(groups, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return mish(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, c_embed: int, width: int, groups: int):
        super().__init__()
        self.first = ConvBlock(c_in, c_out, width, groups)
        self.embed = nn.Linear(c_embed, c_out)
        self.second = ConvBlock(c_out, c_out, width, groups)
        self.skip = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.second(self.first(x) + self.embed(mish(e))[:, :, None]) + self.skip(x)


class Level(nn.Module):
    def __init__(self, c_in: int, c_out: int, resample: nn.Module, *args: int):
        super().__init__()
        self.first = ResidualBlock(c_in, c_out, *args)
        self.second = ResidualBlock(c_out, c_out, *args)
        self.resample = resample

    def forward(self, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.second(self.first(x, e), e)
        return self.resample(kept), kept


class TorchUNet(nn.Module):
    """``(x[n, h, d], c_noise[n]) -> [n, h, d]``; steps and entries are exchanged inside, as Diffuser does it."""

    def __init__(self, d: int, dim: int = 32, mults: Sequence[int] = (1, 4, 8), width: int = 5, groups: int = 8):
        super().__init__()
        channels = [dim * mult for mult in mults]
        rest = (dim, width, groups)
        self.frequencies: Tensor
        frequencies = torch.logspace(0.0, -4.0, dim // 2, dtype=torch.float64).to(torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed = nn.ModuleList([nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)])
        self.down = nn.ModuleList()
        for i, (c_in, c_out) in enumerate(zip([d, *channels], channels, strict=False)):
            last = i + 1 == len(channels)
            halve = nn.Identity() if last else nn.Conv1d(c_out, c_out, 3, stride=2, padding=1)
            self.down.append(Level(c_in, c_out, halve, *rest))
        self.middle = Level(channels[-1], channels[-1], nn.Identity(), *rest)
        self.up = nn.ModuleList()
        for c_in, c_out in zip(channels[:0:-1], channels[-2::-1], strict=True):
            double = nn.ConvTranspose1d(c_out, c_out, 4, stride=2, padding=1)
            self.up.append(Level(2 * c_in, c_out, double, *rest))
        self.last = ConvBlock(channels[0], dim, width, groups)
        self.out = nn.Conv1d(dim, d, 1)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        angles = 1000.0 * c_noise[:, None] * self.frequencies[None]
        e = self.embed[1](mish(self.embed[0](torch.cat([angles.sin(), angles.cos()], dim=1))))
        x, skips = x.transpose(1, 2), []
        for level in self.down:
            x, kept = level(x, e)
            skips.append(kept)
        x, _ = self.middle(x, e)
        for level in self.up:
            x, _ = level(torch.cat([x, skips.pop()], dim=1), e)
        return self.out(self.last(x)).transpose(1, 2)


def denoise(network: TorchUNet, x: Tensor, sigma: Tensor) -> Tensor:
    """D(x, sigma) for ``x[n, h, d]`` and ``sigma[n]``."""
    variance = (sigma**2 + 1)[:, None, None]
    return x / variance + sigma[:, None, None] / variance.sqrt() * network(x / variance.sqrt(), sigma.log() / 4)


@torch.inference_mode()
def ancestral(network: TorchUNet, sigmas: Sequence[float], shape: tuple[int, int, int]) -> Tensor:
    """Plans by the ancestral sampler, one network evaluation per level."""
    x = sigmas[0] * torch.randn(shape)
    for sigma, sigma_next in pairwise(sigmas):
        shrink = 1 - (sigma_next / sigma) ** 2
        x = x + shrink * (denoise(network, x, torch.full(shape[:1], sigma)) - x)
        x = x + sigma_next * shrink**0.5 * torch.randn(shape)
    return denoise(network, x, torch.full(shape[:1], sigmas[-1]))


def train_step(network: TorchUNet, optimiser: torch.optim.Optimizer, x0: Tensor) -> float:
    """One update on the windows ``x0[n, h, d]``, each at a noise level of its own, log sigma ~ N(-0.4, 1.4^2)."""
    sigma = torch.exp(-0.4 + 1.4 * torch.randn(len(x0)))
    estimate = denoise(network, x0 + sigma[:, None, None] * torch.randn_like(x0), sigma)
    loss = (((estimate - x0) ** 2).mean(dim=(1, 2)) * (1 + sigma**2) / sigma**2).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def load(network: TorchUNet, params: Any) -> None:
    """Copy the parameters of our U-Net (a pytree of ``kernel[k, c_in, c_out]``, ``scale``, ``bias``) into `network`."""
    ours = {
        tuple(str(getattr(key, "key", getattr(key, "idx", None))) for key in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            *path, leaf = name.split(".")
            module = network.get_submodule(".".join(path))
            if leaf == "bias":
                value = ours.pop((*path, "bias"))
            elif isinstance(module, nn.GroupNorm):
                value = ours.pop((*path, "scale"))
            else:
                kernel = ours.pop((*path, "kernel"))
                value = kernel.transpose(1, 2, 0) if isinstance(module, nn.ConvTranspose1d) else kernel.T
            if value.shape != tuple(parameter.shape):
                raise ValueError(f"{name} is {tuple(parameter.shape)} in torch and {value.shape} here")
            parameter.copy_(torch.tensor(value))
    if ours:
        raise ValueError(f"parameters that torch has no place for: {sorted('.'.join(path) for path in ours)}")
