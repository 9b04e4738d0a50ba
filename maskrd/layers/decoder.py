"""The student: a decoder that mirrors the teacher (main paper 3.2; RD4AD `de_resnet.py`)."""

from collections.abc import Callable

from torch import Tensor, nn

from maskrd.config.teachers import Architecture
from maskrd.layers.resnet import conv


def upsampling_conv(inputs: int, outputs: int, groups: int = 1) -> nn.ConvTranspose2d:
    """Doubles height and width. It replaces the encoder's strided convolution."""
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2, groups=groups, bias=False)


def upsampling_shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    projection = upsampling_conv(inputs, outputs) if stride == 2 else conv(inputs, outputs, 1)
    return nn.Sequential(projection, nn.BatchNorm2d(outputs))


class DecoderBasicBlock(nn.Module):
    """A basic block whose first convolution doubles the size when `stride` is 2."""

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = upsampling_conv(inputs, planes) if stride == 2 else conv(inputs, planes, 3)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.upsample = upsampling_shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.upsample is None else self.upsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(x + identity)


class DecoderBottleneck(nn.Module):
    """A bottleneck block whose middle convolution doubles the size when `stride` is 2."""

    def __init__(self, inputs: int, planes: int, stride: int = 1, factor: int = 1, groups: int = 1) -> None:
        super().__init__()
        width, outputs = planes * factor, planes * 4
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        middle = upsampling_conv(width, width, groups) if stride == 2 else conv(width, width, 3, groups=groups)
        self.conv2 = middle
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.upsample = upsampling_shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.upsample is None else self.upsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + identity)


class Decoder(nn.Module):
    """Rebuilds the teacher's features from the code, deepest level first.

    It reads the code of the one-class embedding, (N, C4, H/32, W/32), and returns `{level: feature}` with the shapes of
    the teacher's features of levels `shallowest` to 3. Shallower stages are not built, because no loss reads them. As
    in RD4AD, the deepest stage has the block count of the encoder's first stage (3, 4, 6 for ResNet50). So the
    parameter counts are the published ones.
    """

    def __init__(self, architecture: Architecture, shallowest: int = 1) -> None:
        super().__init__()
        self.stages = nn.ModuleDict()
        for position, level in enumerate(range(3, shallowest - 1, -1)):
            self.stages[str(level)] = decoder_stage(architecture, level, architecture.depths[position])

    def forward(self, code: Tensor, after: Callable[[int, Tensor], Tensor] | None = None) -> dict[int, Tensor]:
        """`after` changes each level's feature before it is returned and before the next stage reads it."""
        features, x = {}, code
        for level, stage in self.stages.items():
            x = stage(x)
            if after:
                x = after(int(level), x)
            features[int(level)] = x
        return features


def decoder_stage(architecture: Architecture, level: int, depth: int) -> nn.Sequential:
    inputs, planes = architecture.channels(level + 1), architecture.planes(level)

    def block(channels: int, stride: int) -> nn.Module:
        if architecture.bottleneck:
            return DecoderBottleneck(channels, planes, stride, architecture.bottleneck_factor, architecture.groups)
        return DecoderBasicBlock(channels, planes, stride)

    rest = [block(architecture.channels(level), 1) for _ in range(depth - 1)]
    return nn.Sequential(block(inputs, 2), *rest)
