"""Networks as their users write them: plain torch, nothing of this project's.

Every class is small enough for a test and takes widths, so that a test can choose. `ZOO` names factories
together with the shape of one input.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class PlainCNN(nn.Module):
    """`depth` 3×3 convolutions of one width with activations, a mean over positions, a Linear."""

    def __init__(
        self, depth=4, width=16, activation=nn.Tanh, channels=3, classes=10, padding_mode="zeros", bias=True
    ):
        super().__init__()
        layers = []
        for index in range(depth):
            layers.append(
                nn.Conv2d(
                    width if index else channels, width, 3, padding=1, padding_mode=padding_mode, bias=bias
                )
            )
            layers.append(activation())
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.features(x)), 1))


class StridedCNN(nn.Module):
    """Strides, dilation, an uneven kernel, reflecting and circular and "same" padding, average pooling."""

    def __init__(self, width=8):
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, stride=2, padding=1, padding_mode="reflect")
        self.b = nn.Conv2d(width, width, 3, padding=2, dilation=2, padding_mode="circular")
        self.c = nn.Conv2d(width, width, (4, 2), padding="same")
        self.d = nn.Conv2d(width, width, (1, 5), stride=(1, 2), padding=(0, 2))
        self.head = nn.Linear(width * 2 * 1, 5)

    def forward(self, x):
        x = torch.tanh(self.a(x))
        x = F.relu(self.b(x), inplace=True)
        x = F.avg_pool2d(self.c(x).sigmoid(), 3, stride=2, padding=1, count_include_pad=False)
        x = F.gelu(self.d(x), approximate="tanh")
        x = F.avg_pool2d(x, (2, 2))
        return self.head(x.view(x.size(0), -1))


class LeNet(nn.Module):
    """The one of torch's own tutorial: max-pooling of F.relu, a view whose size is computed in a loop."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = x.view(-1, self.num_flat_features(x))
        x = F.dropout(F.relu(self.fc1(x)), training=self.training)
        x = F.relu(self.fc2(x))
        return self.fc3(x)

    def num_flat_features(self, x):
        features = 1
        for size in x.size()[1:]:
            features *= size
        return features


class DepthwiseSeparable(nn.Module):
    """Depthwise 3×3 and pointwise 1×1 convolutions with BatchNorm and ReLU6, as in MobileNet."""

    def __init__(self, width=12):
        super().__init__()

        def block(inputs, outputs, stride):
            return nn.Sequential(
                nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.ReLU6(inplace=True),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU6(inplace=True),
            )

        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(block(width, 2 * width, 2), block(2 * width, 2 * width, 1))
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean([2, 3]))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm around a shortcut (He et al. 2016).

    `shortcut` is "projection", a 1×1 convolution with BatchNorm where shapes change, or "pad", every other
    position and channels of zeros (option A), written as the CIFAR networks on GitHub have it.
    """

    expansion = 1

    def __init__(self, inputs, planes, stride=1, shortcut="projection"):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != planes:
            if shortcut == "pad":
                pad = (planes - inputs) // 2
                self.shortcut = LambdaLayer(
                    lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad), "constant", 0)
                )
            else:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes)
                )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class LambdaLayer(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the last of four times the width; one ReLU for all, in place."""

    expansion = 4

    def __init__(self, inputs, planes, stride=1, shortcut="projection"):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * planes, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """The CIFAR network of He et al. 2016: stages of blocks of 16, 32, 64 … channels."""

    def __init__(self, block=BasicBlock, blocks=(1, 1, 1), width=16, classes=10, shortcut="projection"):
        super().__init__()
        self.inputs = width
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages = []
        for number, count in enumerate(blocks):
            stages.append(self._stage(block, width * 2**number, count, 1 if number == 0 else 2, shortcut))
        self.stages = nn.ModuleList(stages)
        self.linear = nn.Linear(self.inputs, classes)

    def _stage(self, block, planes, count, stride, shortcut):
        layers = []
        for number in range(count):
            layers.append(block(self.inputs, planes, stride if number == 0 else 1, shortcut))
            self.inputs = planes * block.expansion
        return nn.Sequential(*layers)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            out = stage(out)
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)


class PreActivationBlock(nn.Module):
    """BatchNorm, ReLU, convolution twice; the shortcut begins after the first ReLU where shapes change."""

    def __init__(self, inputs, planes, stride=1):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        if stride != 1 or inputs != planes:
            self.shortcut = nn.Conv2d(inputs, planes, 1, stride=stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + shortcut


class PreActivationResNet(nn.Module):
    """He et al. 2016 (2): the sums are never passed through an activation."""

    def __init__(self, width=8, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(PreActivationBlock(width, width), PreActivationBlock(width, 2 * width, 2))
        self.bn = nn.BatchNorm2d(2 * width)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x):
        out = torch.relu(self.bn(self.blocks(self.conv(x))))
        return self.fc(F.adaptive_avg_pool2d(out, (1, 1)).flatten(1))


class StableResNet(nn.Module):
    """Residual blocks x + conv(relu(x))/√L without normalisation."""

    def __init__(self, blocks=3, width=12, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.relu = nn.ReLU()
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        x = self.stem(x)
        for conv in self.convs:
            x = x + conv(self.relu(x)) / math.sqrt(len(self.convs))
        return self.fc(self.relu(x).mean((2, 3)))


class ReZero(nn.Module):
    """Residual branches with a learned factor each, an in-place sum with `alpha`."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.fc = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.scale * self.a(torch.tanh(x))
        y = self.b(torch.tanh(x))
        y.add_(x, alpha=0.5)
        return self.fc(torch.tanh(y).mean(3).mean(2))


class Bottleneck40(nn.Module):
    """A layer of DenseNet-BC: what it makes is put beside what it was given."""

    def __init__(self, channels, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        narrow = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(narrow)))], 1)


class Transition40(nn.Module):
    """Half of the channels at half of the resolution."""

    def __init__(self, channels):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet40(nn.Module):
    """DenseNet-BC of 40 layers and growth 12 for 32×32 images (Huang et al. 2017): 171,024 weights."""

    def __init__(self, growth=12, layers=6, classes=10):
        super().__init__()
        channels = 2 * growth
        blocks = []
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        for stage in range(3):
            for _ in range(layers):
                blocks.append(Bottleneck40(channels, growth))
                channels += growth
            if stage < 2:
                blocks.append(Transition40(channels))
                channels //= 2
        self.body, self.norm = nn.Sequential(*blocks), nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(F.relu(self.norm(self.body(self.stem(x)))).mean((2, 3)))


class DenseNet(nn.Module):
    """Every layer takes the outputs of all before it (Huang et al. 2017), with a transition."""

    def __init__(self, growth=6):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        channels = 2 * growth
        for _ in range(3):
            self.norms.append(nn.BatchNorm2d(channels))
            self.convs.append(nn.Conv2d(channels, growth, 3, padding=1, bias=False))
            channels += growth
        self.norm = nn.BatchNorm2d(channels)
        self.transition = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2)
        self.last = nn.BatchNorm2d(channels // 2)
        self.classifier = nn.Linear(channels // 2, 10)

    def forward(self, x):
        features = [self.conv0(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        x = torch.cat(features, dim=1)
        x = self.pool(self.transition(F.relu(self.norm(x), inplace=True)))
        x = F.relu(self.last(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class VGG(nn.Module):
    """Simonyan & Zisserman 2015 for small images, with BatchNorm: numbers are widths, "M" a max-pooling."""

    plans = {  # noqa: RUF012
        11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
        16: (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    }

    def __init__(self, depth=11, divide=8, batch_norm=True, classes=10):
        super().__init__()
        layers, channels = [], 3
        for entry in self.plans[depth]:
            if entry == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            width = entry // divide
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(channels, 64), nn.ReLU(True), nn.Linear(64, classes)
        )

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.reshape(x.shape[0], -1))


class GroupNormNet(nn.Module):
    """GroupNorm, InstanceNorm and LayerNorm over whole images, and one over vectors."""

    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(4, width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.norm2 = nn.InstanceNorm2d(width, affine=True)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.norm3 = nn.LayerNorm([width, 8, 8])
        self.act = nn.SiLU()
        self.drop = nn.Dropout2d(0.1)
        self.fc1 = nn.Linear(width * 64, 20)
        self.norm4 = nn.LayerNorm(20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x):
        x = self.act(self.norm1(self.conv1(x)))
        x = self.drop(self.act(self.norm2(self.conv2(x))))
        x = self.act(self.norm3(self.conv3(x))).flatten(start_dim=1)
        return self.fc2(self.act(self.norm4(self.fc1(x))))


class MyLinear(nn.Linear):
    """A subclass that draws its weights in its own way and computes what Linear computes."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.note = "mine"

    def reset_parameters(self):
        nn.init.normal_(self.weight, 0.0, 1.3 / math.sqrt(self.in_features))
        nn.init.zeros_(self.bias)


class MyConv(nn.Conv2d):
    """Likewise, with a padding of its own choice."""

    def __init__(self, inputs, outputs, kernel):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)


class MyNorm(nn.BatchNorm2d):
    """BatchNorm by another name."""


class Swish(nn.Module):
    """An activation written out."""

    def forward(self, x):
        return x * torch.sigmoid(x)


class HardSwish(nn.Module):
    """Another one, of relu6 (Howard et al. 2019)."""

    def forward(self, x):
        return x * F.relu6(x + 3.0, inplace=True) / 6.0


class GlobalPool(nn.Module):
    """A mean over positions as a user's own module."""

    def forward(self, x):
        return x.mean(dim=-1).mean(dim=-1)


class WithSubclasses(nn.Module):
    """Layers of the user's own throughout."""

    def __init__(self, width=10):
        super().__init__()
        self.body = nn.Sequential(
            MyConv(3, width, 3), MyNorm(width), Swish(), MyConv(width, width, 5), HardSwish(),
            MyConv(width, width, 1), Swish(), GlobalPool(),
        )  # fmt: skip
        self.head = MyLinear(width, 10)

    def forward(self, x):
        return self.head(self.body(x))


class SequenceNet(nn.Module):
    """Convolutions over one axis."""

    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv1d(2, width, 5, padding=2)
        self.norm = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1, padding_mode="circular")
        self.conv3 = nn.Conv1d(width, 2 * width, 3, padding="same", dilation=2, groups=2)
        self.fc = nn.Linear(2 * width, 4)

    def forward(self, x):
        x = F.max_pool1d(F.elu(self.norm(self.conv1(x))), 2)
        x = F.leaky_relu(self.conv2(x), 0.2)
        x = F.avg_pool1d(torch.tanh(self.conv3(x)), 2)
        return self.fc(F.adaptive_avg_pool1d(x, 1).squeeze(-1))


class PaddedNet(nn.Module):
    """Padding as modules and functions before convolutions; means and maxima over positions, joined."""

    def __init__(self, width=6):
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.conv1 = nn.Conv2d(3, width, 3, stride=2)
        self.reflect = nn.ReflectionPad2d(1)
        self.conv2 = nn.Conv2d(width, width, 3, bias=False)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(2 * width, 3)

    def forward(self, x):
        x = torch.relu(self.conv1(self.pad(x)))
        x = torch.relu(self.conv2(self.reflect(x)))
        x = torch.relu(self.conv3(F.pad(x, (1, 0, 0, 0))))
        return self.fc(torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1).flatten(1))


class MLP(nn.Module):
    """Flattened images, fully connected layers, one activation module for all."""

    def __init__(self, depth=3, width=30, inputs=64, classes=10):
        super().__init__()
        sizes = [inputs] + [width] * (depth - 1)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.act = nn.Tanh()
        self.out = nn.Linear(sizes[-1], classes)

    def forward(self, x):
        x = x.view(x.shape[0], -1)
        for layer in self.hidden:
            x = self.act(layer(x))
        return self.out(x)


#: Factories and the shape of one input.
ZOO = {
    "plain CNN": (PlainCNN, (3, 12, 12)),
    "strided CNN": (StridedCNN, (3, 16, 16)),
    "LeNet": (LeNet, (1, 32, 32)),
    "depthwise separable": (DepthwiseSeparable, (3, 12, 12)),
    "ResNet, 1x1 shortcuts": (lambda: ResNet(blocks=(1, 2, 1), width=8), (3, 16, 16)),
    "ResNet, option A": (lambda: ResNet(blocks=(1, 1, 1), width=8, shortcut="pad"), (3, 16, 16)),
    "ResNet, bottlenecks": (lambda: ResNet(Bottleneck, (1, 1), 4), (3, 8, 8)),
    "pre-activation ResNet": (PreActivationResNet, (3, 12, 12)),
    "stable ResNet": (StableResNet, (3, 10, 10)),
    "ReZero": (ReZero, (3, 10, 10)),
    "DenseNet": (DenseNet, (3, 8, 8)),
    "VGG-11": (VGG, (3, 32, 32)),
    "GroupNorm": (GroupNormNet, (3, 16, 16)),
    "own subclasses": (WithSubclasses, (3, 8, 8)),
    "sequences": (SequenceNet, (2, 24)),
    "padding": (PaddedNet, (3, 9, 9)),
    "MLP": (MLP, (1, 8, 8)),
}
