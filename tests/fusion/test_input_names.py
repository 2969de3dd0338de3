"""Models whose forward calls its input by a name that Python itself uses."""

from __future__ import annotations

import torch
from torch import nn

from spacetime.fusion import fuse


def test_a_bare_layer_whose_parameter_is_called_input_fuses() -> None:
    models = [nn.Linear(4, 3).eval() for _ in range(3)]
    x = torch.randn(3, 4)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
    got = fused(x, index=torch.tensor([2, 0, 1]))
    expected = torch.cat([models[t](x[i : i + 1]) for i, t in enumerate((2, 0, 1))])
    torch.testing.assert_close(got, expected)
