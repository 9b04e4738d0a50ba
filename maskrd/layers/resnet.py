"""ResNet blocks and the feature pyramid, in plain torch.

Every network of the pipeline is made of these blocks: teachers, one-class embeddings, students. Parameter names are
those of torchvision and timm, so their ImageNet weights load unchanged. The rule `teacher` checks that this pyramid and
timm's give the same features. Importing timm or torchvision would cost seconds in each of hundreds of short jobs.
"""

from torch import Tensor, nn

from maskrd.config.teachers import Architecture


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1 (a norm follows)."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet18)."""

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(inputs, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(x + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions and a shortcut (ResNet50).

    `factor` widens the 3x3 convolution (WideResNet50-2), `groups` splits it (ResNeXt50).
    """

    def __init__(self, inputs: int, planes: int, stride: int = 1, factor: int = 1, groups: int = 1) -> None:
        super().__init__()
        width, outputs = planes * factor, planes * 4
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride, groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + identity)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def stage(architecture: Architecture, number: int, inputs: int, stride: int) -> nn.Sequential:
    """Stage `number` (1 to 4) of a network, fed with `inputs` channels."""
    planes, outputs = architecture.planes(number), architecture.channels(number)

    def block(channels: int, step: int) -> nn.Module:
        if architecture.bottleneck:
            return Bottleneck(channels, planes, step, architecture.bottleneck_factor, architecture.groups)
        return BasicBlock(channels, planes, step)

    rest = [block(outputs, 1) for _ in range(architecture.depths[number - 1] - 1)]
    return nn.Sequential(block(inputs, stride), *rest)


class FeaturePyramid(nn.Module):
    """Stem and stages 1 to 3 of a ResNet: images (N, 3, H, W) to features at 1/4, 1/8 and 1/16.

    Stage 4 and the classifier are not built, since no method reads them.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width = architecture.width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(architecture, 1, width, stride=1)
        self.layer2 = stage(architecture, 2, architecture.channels(1), stride=2)
        self.layer3 = stage(architecture, 3, architecture.channels(2), stride=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            features.append(x)
        return features


def init_weights(module: nn.Module) -> None:
    """Kaiming-normal convolutions (fan out) and unit norms, as reverse distillation's code does."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
