"""Small networks and data that several test files use."""

import numpy as np

import ndquant as nq
from ndquant import nn

PRESETS = ("int8", "int8_per_tensor", "int4", "int4_pact", "int4_lsq", "int2_lsq", "torch_default", "fbgemm", "qnnpack")


def mlp(sizes=(6, 16, 12, 4), rng=0):
    """A multilayer perceptron; its layers are "0", "2", "4"."""
    rng = np.random.default_rng(rng)
    layers = [nn.Linear(k, o, rng=rng) for k, o in zip(sizes[:-1], sizes[1:], strict=True)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


class Block(nn.Module):
    """Two convolutions with a shortcut, which halves images and adds channels by slicing and padding."""

    def __init__(self, channels, out_channels, stride=1):
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False, rng=channels)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False, rng=out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride, self.added = stride, out_channels - channels

    def forward(self, x):
        y = nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = np.pad(x[:, :, ::2, ::2], ((0, 0), (self.added // 2, self.added // 2), (0, 0), (0, 0)))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Residual network for small images (He et al., 2015, https://arxiv.org/abs/1512.03385, section 4.2)."""

    def __init__(self, widths=(16, 32, 64), blocks=3):
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False, rng=0)
        self.bn1 = nn.BatchNorm2d(widths[0])
        channels, self.groups = widths[0], len(widths)
        for number, width in enumerate(widths, 1):
            parts = []
            for _ in range(blocks):
                parts.append(Block(channels, width, stride=2 if width > channels else 1))
                channels = width
            setattr(self, f"layer{number}", nn.Sequential(*parts))
        self.linear = nn.Linear(channels, 10, rng=1)

    def forward(self, x):
        y = nn.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.groups + 1):
            y = getattr(self, f"layer{number}")(y)
        return self.linear(nn.flatten(nn.adaptive_avg_pool2d(y, 1)))


def resnet20(folder):
    """ResNet-20 with trained weights."""
    model = ResNet().eval()
    with np.load(folder / "resnet20.npz") as weights:
        model.load_state_dict(weights)
    return model


def cifar10(folder):
    """Images as ResNet-20 wants them, and labels: (calibration images, test images, test labels)."""
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    with np.load(folder / "cifar10.npz") as data:
        train, test = (
            ((data[name].astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2) for name in ("x_train", "x_test")
        )
        return train, test, data["y_test"]


def inputs(count=64, features=6, rng=0):
    """Normal values, with some far out so that ranges clip."""
    x = np.random.default_rng(rng).standard_normal((count, features)).astype(np.float32)
    x[::17] *= 4
    return x


def quantized(preset="int8", model=None, calibration=None):
    """A converted network."""
    return nq.quantize_static(model or mlp(), [inputs(rng=1) if calibration is None else calibration], preset)


def trained_qat(preset="int4", steps=20):
    """A graph of prepare_qat after some steps of training."""
    qat = nq.prepare_qat(mlp(), inputs(), preset)
    opt, x, labels = nn.Adam(qat.parameters(), lr=1e-2), inputs(), np.arange(64) % 4
    for _ in range(steps):
        _, dlogits = nn.cross_entropy(qat(x), labels)
        qat.backward(dlogits)
        opt.step()
    return qat
