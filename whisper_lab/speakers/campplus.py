"""CAM++, the network that turns a stretch of speech into a fingerprint of its speaker, in PyTorch.

Wang et al. 2023, "CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware Masking"
(arXiv 2303.00332). Names of modules are those in the published weights (3D-Speaker, Apache-2.0; 7.2 million
parameters; trained on 200,000 Chinese and English speakers), so that they load strictly. Needed once, to export.

    features [batch, frames, 80]
      head    2-D convolutions: local patterns in time and frequency          [batch, 32 x 10, frames]
      tdnn    1-D convolution with a step of two                              [batch, 128, frames / 2]
      block   12, 24 and 16 layers; each adds 32 channels to what came before, masked by what the context says
      stats   mean and standard deviation over time: any length becomes one vector                  [batch, 1024]
      dense   the fingerprint                                                                       [batch, 192]
"""

import torch
from torch import nn

GROWTH, WIDTH, MASK = 32, 128, 64  # channels: added by a layer, inside it, of the mask's bottleneck
BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers, dilation
CONTEXT = 100  # frames (2 s) over which the context of a mask is averaged, besides the whole stretch
SIZE = 192  # of a fingerprint


class Normalized(nn.Module):
    """Batch normalization with the published name, and a ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels)

    def forward(self, x):
        return torch.relu(self.batchnorm(x))


class Residual(nn.Module):
    """Two 3 x 3 convolutions and a way around them; `step` halves the frequencies."""

    def __init__(self, channels: int, step: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, (step, 1), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if step != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, channels, 1, (step, 1), bias=False),
                                          nn.BatchNorm2d(channels))

    def forward(self, x):
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.shortcut(x))


class Head(nn.Module):
    """[batch, frames, 80] -> [batch, 320, frames]"""

    def __init__(self, channels: int = 32):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(Residual(channels, 2), Residual(channels, 1))
        self.layer2 = nn.Sequential(Residual(channels, 2), Residual(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, (2, 1), 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, features):
        x = features.transpose(1, 2)[:, None]  # [batch, 1, 80, frames]
        x = self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(self.bn2(self.conv2(x))).flatten(1, 2)


class Masked(nn.Module):
    """A convolution whose channels are let through as far as the context (this stretch, these 2 s) asks for them."""

    def __init__(self, dilation: int):
        super().__init__()
        self.linear_local = nn.Conv1d(WIDTH, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(WIDTH, MASK, 1)
        self.linear2 = nn.Conv1d(MASK, GROWTH, 1)

    def forward(self, x):
        near = nn.functional.avg_pool1d(x, CONTEXT, CONTEXT, ceil_mode=True)  # the last piece may be shorter
        near = near.repeat_interleave(CONTEXT, dim=2)[..., :x.shape[2]]
        context = x.mean(2, keepdim=True) + near
        return self.linear_local(x) * torch.sigmoid(self.linear2(torch.relu(self.linear1(context))))


class Layer(nn.Module):
    """Adds GROWTH channels to those that come in."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.nonlinear1 = Normalized(channels)
        self.linear1 = nn.Conv1d(channels, WIDTH, 1, bias=False)
        self.nonlinear2 = Normalized(WIDTH)
        self.cam_layer = Masked(dilation)

    def forward(self, x):
        return torch.cat([x, self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))], dim=1)


class Projection(nn.Module):
    """Half as many channels, between two blocks."""

    def __init__(self, channels: int):
        super().__init__()
        self.nonlinear = Normalized(channels)
        self.linear = nn.Conv1d(channels, channels // 2, 1, bias=False)

    def forward(self, x):
        return self.linear(self.nonlinear(x))


class Start(nn.Module):
    """[batch, 320, frames] -> [batch, 128, frames / 2]"""

    def __init__(self):
        super().__init__()
        self.linear = nn.Conv1d(320, WIDTH, 5, 2, 2, bias=False)
        self.nonlinear = Normalized(WIDTH)

    def forward(self, x):
        return self.nonlinear(self.linear(x))


class Dense(nn.Module):
    """[batch, channels] -> [batch, SIZE]"""

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Conv1d(channels, SIZE, 1, bias=False)
        self.nonlinear = nn.Module()
        self.nonlinear.batchnorm = nn.BatchNorm1d(SIZE, affine=False)

    def forward(self, x):
        return self.nonlinear.batchnorm(self.linear(x[..., None])[..., 0])


class Campplus(nn.Module):
    """float32 [batch, frames, 80] -> [batch, 192]; their cosine says how much two voices are alike."""

    def __init__(self):
        super().__init__()
        self.head, parts, channels = Head(), [("tdnn", Start())], WIDTH
        for number, (layers, dilation) in enumerate(BLOCKS, 1):
            block = [(f"tdnnd{i + 1}", Layer(channels + i * GROWTH, dilation)) for i in range(layers)]
            channels += layers * GROWTH
            parts += [(f"block{number}", _named(block)), (f"transit{number}", Projection(channels))]
            channels //= 2
        self.xvector = _named([*parts, ("out_nonlinear", Normalized(channels))])
        self.xvector.add_module("dense", Dense(2 * channels))

    def forward(self, features):
        x = self.head(features)
        for name, part in self.xvector.named_children():
            if name == "dense":
                x = torch.cat([x.mean(2), x.std(2)], dim=1)
            x = part(x)
        return x


def _named(parts: list) -> nn.Sequential:
    made = nn.Sequential()
    for name, part in parts:
        made.add_module(name, part)
    return made
