"""The student: a decoder that mirrors the teacher (main paper 3.2; RD4AD `de_resnet.py`)."""

from torch import Tensor, nn

from maskrd.layers.resnet import Architecture, conv


def upsampling_conv(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Doubles height and width; stands where the encoder has a strided convolution."""
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)


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

    def __init__(self, inputs: int, planes: int, stride: int = 1, factor: int = 1) -> None:
        super().__init__()
        width, outputs = planes * factor, planes * 4
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = upsampling_conv(width, width) if stride == 2 else conv(width, width, 3)
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

    Reads the code of the one-class embedding, (N, C4, H/32, W/32), and returns `{level: feature}`,
    shaped as the teacher's features of levels `shallowest` to 3. Shallower stages, which no loss
    reads, are not built. RD4AD gives the deepest stage the block count of the encoder's first one
    (3, 4, 6 for ResNet50), and so do we: its parameter counts are the published ones.
    """

    def __init__(self, architecture: Architecture, shallowest: int = 1) -> None:
        super().__init__()
        self.stages = nn.ModuleDict()
        for position, level in enumerate(range(3, shallowest - 1, -1)):
            self.stages[str(level)] = decoder_stage(architecture, level, architecture.depths[position])

    def forward(self, code: Tensor) -> dict[int, Tensor]:
        features, x = {}, code
        for level, stage in self.stages.items():
            x = stage(x)
            features[int(level)] = x
        return features


def decoder_stage(architecture: Architecture, level: int, depth: int) -> nn.Sequential:
    inputs, planes = architecture.channels(level + 1), architecture.planes(level)

    def block(channels: int, stride: int) -> nn.Module:
        if architecture.bottleneck:
            return DecoderBottleneck(channels, planes, stride, architecture.bottleneck_factor)
        return DecoderBasicBlock(channels, planes, stride)

    rest = [block(architecture.channels(level), 1) for _ in range(depth - 1)]
    return nn.Sequential(block(inputs, 2), *rest)
