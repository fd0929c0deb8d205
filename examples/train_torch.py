"""A network trained with PyTorch, and the accelerator that it becomes: trains, compiles from the
module, simulates and reports.

    python examples/train_torch.py [-o OUT] [--target BOARD] [--ratio R]

Whose voice is it? Utterances of nine speakers, see `examples/README.md`. It needs ``pip install
'pvq-hw[sim,train]'`` and takes under two minutes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pvq_hw

HERE = Path(__file__).parent


class Residual(nn.Module):
    """A convolution whose input is added to its output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm1d(channels),
            nn.LeakyReLU(0.1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def network() -> nn.Module:
    """12 coefficients of 29 frames in, nine speakers out."""
    return nn.Sequential(
        nn.Conv1d(12, 24, 5, padding=2, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.MaxPool1d(2),
        Residual(24), nn.MaxPool1d(2), nn.Dropout(0.3), nn.Flatten(), nn.Linear(24 * 7, 9),
    )  # fmt: skip


def train(module: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Trains in place, with noise on the inputs since there are few."""
    x, y = torch.as_tensor(x), torch.as_tensor(y, dtype=torch.long)
    steps = epochs * -(-len(x) // 32)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            noisy = x[batch] + 0.05 * torch.randn_like(x[batch])
            loss = nn.functional.cross_entropy(module(noisy), y[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("vowels-torch"))
    parser.add_argument("--target", default="ulx3s-25f")
    parser.add_argument("--ratio", type=float, default=3.0)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    started = time.monotonic()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    learned, held = (np.load(HERE / f"japanese_vowels_{part}.npz") for part in ("train", "test"))

    module = network()
    train(module, learned["x"], learned["y"], args.epochs)
    print(f"trained in {time.monotonic() - started:.0f} s")

    made = pvq_hw.compile(
        module, args.out, example_inputs=learned["x"], target=args.target, ratio=args.ratio,
        calibrate=learned["x"], evaluate=pvq_hw.Data(held["x"], held["y"]),
    )  # fmt: skip
    print(made.summary())

    with torch.no_grad():
        own = module.eval()(torch.as_tensor(held["x"])).numpy()
    found = made.predict(held["x"])
    agree = np.mean(found.argmax(1) == own.argmax(1))
    print(f"PyTorch {100 * np.mean(own.argmax(1) == held['y']):.2f} %, "
          f"accelerator {100 * np.mean(found.argmax(1) == held['y']):.2f} %, "
          f"the same answer on {100 * agree:.1f} %")  # fmt: skip

    document = made.simulate(held["x"][:40], labels=held["y"][:40])
    print(f"simulated: {document['mismatches']} mismatches in {document['outputs_compared']:,} "
          f"outputs, {document['interval_cycles']:,} cycles a frame")  # fmt: skip
    print(f"{time.monotonic() - started:.0f} s in all; the report is {args.out}/report.html")


if __name__ == "__main__":
    main()
