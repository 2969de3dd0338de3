"""Small residual networks, each trained in two seconds on scikit-learn's handwritten digits.

The pictures are real: 1797 scans of 8 x 8 pixels, enlarged to 32 x 32 for the networks. Every
tenant answers another question about the same pictures, but all have ten outputs and one
architecture, so they form one family: only the weights differ, which is the case fusing is for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from spacetime.demo.zoo.exhibits import ZooModel, one_thread

CLASSES = 10
HELD_OUT = 360
BATCH = 32
LEARNING_RATE = 0.05

# What a tenant is asked about the digit in the picture: the name of the question and its answer.
TASKS: tuple[tuple[str, Callable[[int], int]], ...] = (
    ("digit", lambda digit: digit),
    ("odd", lambda digit: digit % 2),
    ("above-four", lambda digit: int(digit > 4)),
    ("prime", lambda digit: int(digit in (2, 3, 5, 7))),
    ("mod-three", lambda digit: digit % 3),
    ("loop", lambda digit: int(digit in (0, 6, 8, 9))),
    ("square", lambda digit: int(digit in (0, 1, 4, 9))),
    ("successor", lambda digit: (digit + 1) % CLASSES),
)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; `stride` 2 halves height and width."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class DigitNet(nn.Module):
    """Six residual blocks, 174,970 parameters: `[N, 1, 32, 32]` to scores `[N, 10]`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            ResidualBlock(16, 16, stride=1),
            ResidualBlock(16, 16, stride=1),
            ResidualBlock(16, 32, stride=2),
            ResidualBlock(32, 32, stride=1),
            ResidualBlock(32, 64, stride=2),
            ResidualBlock(64, 64, stride=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        return scores


@cache
def _pictures() -> tuple[Tensor, Tensor]:
    """All pictures `[1797, 1, 32, 32]` in 0..1 and their digits `[1797]`, shuffled once for all."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    scans = torch.tensor(digits.images, dtype=torch.float32)[order].unsqueeze(1) / 16
    pictures = F.interpolate(scans, scale_factor=4, mode="bilinear")
    return pictures, torch.tensor(digits.target, dtype=torch.int64)[order]


def _train(model: DigitNet, pictures: Tensor, labels: Tensor) -> None:
    """Two passes over pictures of half the size, which cost a quarter, then one over these."""
    fine = pictures.contiguous(memory_format=torch.channels_last)  # a third faster
    coarse = F.avg_pool2d(fine, 2)
    batches = len(labels) // BATCH
    passes = (coarse, coarse, fine)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=len(passes) * batches, pct_start=0.2
    )
    for inputs in passes:
        for batch in torch.randperm(len(labels))[: batches * BATCH].view(batches, BATCH):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(inputs[batch]), labels[batch]))
            optimizer.step()
            schedule.step()


def build(index: int, seed: int) -> ZooModel:
    """Train the network for question `index` (they repeat, with other weights, after the last).

    Its pool is the pictures held out from training, so accuracy on it is honest.
    """
    task, answer = TASKS[index % len(TASKS)]
    pictures, digits = _pictures()
    labels = torch.tensor([answer(int(digit)) for digit in digits])
    with torch.random.fork_rng(devices=()), one_thread():
        torch.manual_seed(1000 * seed + index)
        model = DigitNet()
        _train(model, pictures[HELD_OUT:], labels[HELD_OUT:])
    return ZooModel(
        name=f"{task}-{index}",
        model=model.eval(),
        pool=pictures[:HELD_OUT].contiguous(),
        labels=labels[:HELD_OUT],
    )


BUILDERS = {"digits": build}
