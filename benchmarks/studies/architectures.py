"""Public architectures as layer lists, from their published shapes; nothing is downloaded.

As PyTorch's reference models run them in inference, kernel by kernel: batch-norm and activation
are launches of their own. Images are 3 x 224 x 224, also for Inception; BERT takes 128 tokens.
ResNet (1512.03385), VGG (1409.1556), DenseNet (1608.06993), MobileNetV2 (1801.04381), Inception V3
(1512.00567), BERT-large (1810.04805).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from spacetime.profiles.cost import Layer

CLASSES = 1000
SIDE = 224


@dataclass
class Picture:
    """An image on its way through a network: channels, side, and the layers it went through."""

    channels: int = 3
    height: int = SIDE
    width: int = SIDE
    layers: list[Layer] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Numbers of the present value."""
        return self.channels * self.height * self.width

    def at(self, channels: int) -> Picture:
        """A branch that begins here, with other channels, writing to the same list."""
        return replace(self, channels=channels)

    def conv(
        self, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1,
        pad: int | tuple[int, int] = 0, groups: int = 1, bias: bool = False,
    ) -> Picture:  # fmt: skip
        """A convolution, `groups` = channels being depthwise."""
        (rows, columns), (up, left) = _pair(kernel), _pair(pad)
        inputs, before = self.channels // groups, self.size
        self.height = (self.height + 2 * up - rows) // stride + 1
        self.width = (self.width + 2 * left - columns) // stride + 1
        self.channels = outputs
        depthwise = groups > 1 and inputs == 1
        k, places = inputs * rows * columns, self.height * self.width
        self.layers.append(Layer(
            "move" if depthwise else "product", places, outputs // groups, k, groups,
            values=before + self.size, weights=outputs * (k + bias),
        ))  # fmt: skip
        return self

    def norm(self) -> Picture:
        """Batch-norm: a pass over the value."""
        return self.passes(parameters=2 * self.channels)

    def act(self) -> Picture:
        """An activation."""
        return self.passes()

    def unit(
        self, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1,
        pad: int | tuple[int, int] = 0, groups: int = 1,
    ) -> Picture:  # fmt: skip
        """Convolution, batch-norm, activation."""
        return self.conv(outputs, kernel, stride=stride, pad=pad, groups=groups).norm().act()

    def passes(self, times: int = 2, parameters: int = 0) -> Picture:
        """A launch that reads or writes a value of this size `times` times."""
        self.layers.append(Layer("move", values=times * self.size, weights=parameters))
        return self

    def pool(self, kernel: int, stride: int, pad: int = 0, *, up: bool = False) -> Picture:
        """A pooling window; `up` rounds the size up."""
        before, more = self.size, stride - 1 if up else 0
        self.height = (self.height + 2 * pad - kernel + more) // stride + 1
        self.width = (self.width + 2 * pad - kernel + more) // stride + 1
        self.layers.append(Layer("move", values=before + self.size))
        return self

    def classify(self, *widths: int) -> Picture:
        """The mean over places, then linear layers with activations between them."""
        self.layers.append(Layer("move", values=self.size + self.channels))
        self.height = self.width = 1
        return self.linear(*widths)

    def linear(self, *widths: int) -> Picture:
        """Linear layers on all numbers, activations between them."""
        for number, width in enumerate(widths):
            if number:
                self.act()
            size, self.channels, self.height, self.width = self.size, width, 1, 1
            self.layers.append(
                Layer("product", 1, width, size, values=size + width, weights=(size + 1) * width)
            )
        return self

    def joined(self, *branches: Picture) -> Picture:
        """Branches side by side: one copy of them all."""
        first = branches[0]
        self.channels = sum(branch.channels for branch in branches)
        self.height, self.width = first.height, first.width
        return self.passes()


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _counted(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    counts = Counter(layers)
    return tuple(replace(layer, count=times) for layer, times in counts.items())


def resnet(*depths: int) -> tuple[Layer, ...]:
    """Returns a ResNet of bottleneck blocks, with as many in each of four stages."""
    x = Picture().unit(64, 7, stride=2, pad=3).pool(3, 2, 1)
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for block in range(depth):
            stride = 2 if block == 0 and stage else 1
            if block == 0:
                x.at(x.channels).conv(4 * width, 1, stride=stride).norm()
            x.unit(width, 1).unit(width, 3, stride=stride, pad=1).conv(4 * width, 1).norm()
            x.passes(3).act()  # the sum with the shortcut
    return _counted(x.classify(CLASSES).layers)


def vgg(*depths: int) -> tuple[Layer, ...]:
    """Returns a VGG: five stages of 3 x 3 convolutions with bias, then three linear layers."""
    x = Picture()
    for depth, width in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            x.conv(width, 3, pad=1, bias=True).act()
        x.pool(2, 2)
    return _counted(x.linear(4096, 4096, CLASSES).layers)


def densenet(*depths: int) -> tuple[Layer, ...]:
    """DenseNet-BC: growth 32 from 64 channels; every layer reads all before it, copied together."""
    growth = 32
    x = Picture().unit(64, 7, stride=2, pad=3).pool(3, 2, 1)
    for block, depth in enumerate(depths):
        for _ in range(depth):
            inner = x.at(x.channels).passes()  # the copy
            inner.norm().act().unit(4 * growth, 1).conv(growth, 3, pad=1)
            x.channels += growth
        x.passes().norm().act()
        if block < len(depths) - 1:
            x.conv(x.channels // 2, 1).pool(2, 2)
    return _counted(x.classify(CLASSES).layers)


# Expansion, channels, how many, stride of the first: table 2 of the paper.
INVERTED = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2() -> tuple[Layer, ...]:
    """Returns MobileNetV2 of width 1."""
    x = Picture().unit(32, 3, stride=2, pad=1)
    for expansion, channels, repeats, first in INVERTED:
        for number in range(repeats):
            stride, residual = (first, False) if number == 0 else (1, True)
            if expansion > 1:
                x.unit(x.channels * expansion, 1)
            x.unit(x.channels, 3, stride=stride, pad=1, groups=x.channels)
            x.conv(channels, 1).norm()
            if residual:
                x.passes(3)
    return _counted(x.unit(1280, 1).classify(CLASSES).layers)


def inception_v3(side: int = SIDE) -> tuple[Layer, ...]:
    """Inception V3 without its auxiliary classifier; the paper's images have a side of 299."""
    x = (
        Picture(height=side, width=side)
        .unit(32, 3, stride=2)
        .unit(32, 3)
        .unit(64, 3, pad=1)
        .pool(3, 2)
    )
    x.unit(80, 1).unit(192, 3).pool(3, 2)
    for pooled in (32, 64, 64):
        _block_a(x, pooled)
    _reduction_a(x)
    for width in (128, 160, 160, 192):
        _block_b(x, width)
    _reduction_b(x)
    for _ in range(2):
        _block_c(x)
    return _counted(x.classify(CLASSES).layers)


def _block_a(x: Picture, pooled: int) -> None:
    branch = partial(x.at, x.channels)
    x.joined(
        branch().unit(64, 1),
        branch().unit(48, 1).unit(64, 5, pad=2),
        branch().unit(64, 1).unit(96, 3, pad=1).unit(96, 3, pad=1),
        branch().pool(3, 1, 1).unit(pooled, 1),
    )


def _reduction_a(x: Picture) -> None:
    branch = partial(x.at, x.channels)
    x.joined(
        branch().unit(384, 3, stride=2),
        branch().unit(64, 1).unit(96, 3, pad=1).unit(96, 3, stride=2),
        branch().pool(3, 2),
    )


def _block_b(x: Picture, width: int) -> None:
    branch = partial(x.at, x.channels)
    tall, wide = (7, 1), (1, 7)
    twice = branch().unit(width, 1).unit(width, tall, pad=(3, 0)).unit(width, wide, pad=(0, 3))
    x.joined(
        branch().unit(192, 1),
        branch().unit(width, 1).unit(width, wide, pad=(0, 3)).unit(192, tall, pad=(3, 0)),
        twice.unit(width, tall, pad=(3, 0)).unit(192, wide, pad=(0, 3)),
        branch().pool(3, 1, 1).unit(192, 1),
    )


def _reduction_b(x: Picture) -> None:
    branch = partial(x.at, x.channels)
    wide = branch().unit(192, 1).unit(192, (1, 7), pad=(0, 3)).unit(192, (7, 1), pad=(3, 0))
    x.joined(
        branch().unit(192, 1).unit(320, 3, stride=2),
        wide.unit(192, 3, stride=2),
        branch().pool(3, 2),
    )


def _block_c(x: Picture) -> None:
    branch = partial(x.at, x.channels)
    split, long = branch().unit(384, 1), branch().unit(448, 1).unit(384, 3, pad=1)
    halves = [
        part.at(384).unit(384, kernel, pad=pad)
        for part in (split, long)
        for kernel, pad in (((1, 3), (0, 1)), ((3, 1), (1, 0)))
    ]
    x.joined(branch().unit(320, 1), *halves, branch().pool(3, 1, 1).unit(192, 1))


def bert(
    layers: int = 24, width: int = 1024, heads: int = 16, tokens: int = 128
) -> tuple[Layer, ...]:
    """BERT with attention as two products and a softmax, each a launch; linear layers with bias."""
    value, scores = tokens * width, heads * tokens * tokens

    def linear(outputs: int, inputs: int) -> Layer:
        return Layer(
            "product", tokens, outputs, inputs,
            values=tokens * (inputs + outputs), weights=(inputs + 1) * outputs,
        )  # fmt: skip

    head = width // heads
    norm = [Layer("move", values=3 * value), Layer("move", values=2 * value, weights=2 * width)]
    block = [
        *[linear(width, width)] * 3,
        Layer("pairs", tokens, tokens, head, heads, values=2 * value + scores),
        *[Layer("move", values=2 * scores)] * 3,  # scale, mask, softmax
        Layer("pairs", tokens, head, tokens, heads, values=2 * value + scores),
        *[Layer("move", values=2 * value)] * 4,  # heads apart, and together again
        linear(width, width), *norm,
        linear(4 * width, width), Layer("move", values=8 * value), linear(width, 4 * width), *norm,
    ]  # fmt: skip
    embedding = [Layer("move", values=2 * value)] * 3 + norm
    return _counted([*embedding, *block * layers])


MODELS: dict[str, Callable[[], tuple[Layer, ...]]] = {
    "resnet50": partial(resnet, 3, 4, 6, 3),
    "resnet101": partial(resnet, 3, 4, 23, 3),
    "resnet152": partial(resnet, 3, 8, 36, 3),
    "vgg16": partial(vgg, 2, 2, 3, 3, 3),
    "vgg19": partial(vgg, 2, 2, 4, 4, 4),
    "densenet121": partial(densenet, 6, 12, 24, 16),
    "densenet169": partial(densenet, 6, 12, 32, 32),
    "densenet201": partial(densenet, 6, 12, 48, 32),
    "mobilenetv2": mobilenet_v2,
    "inceptionv3": inception_v3,
    "bert": bert,
}
