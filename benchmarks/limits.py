"""What stops codes of few pulses: the best real weights on their supports.

Run as ``python -m benchmarks.limits --models FOLDER [--mnist FOLDER] [--kws FOLDER]
[--cifar FILE.npz]``, with PyTorch: of rows of `benchmarks.reach` that miss what is asked, the
network is quantized from the same four fifths of the calibration inputs, pulses wherever they are
best. Then the weights that have pulses become real ones, and these and all biases are trained
together against the float model's outputs, activations not rounded; the state of the least error on
inputs held out is kept. Where that loses more than is asked, no magnitudes of whole pulses on these
supports can be expected to lose less. Results that the file already holds are not computed again.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.networks import read, save
from benchmarks.reach import ROWS, Row, data_arguments, judged, row_data
from pvq_hw import quantize
from pvq_hw.data.dataset import Data
from pvq_hw.model.load import load_model
from pvq_hw.network.network import Network
from pvq_hw.quantizer.fused import Step
from pvq_hw.train.torch_model import Graph

RESULTS = Path(__file__).parent / "results" / "limits.json"
_PART = 0.8  # of the calibration inputs, as in `benchmarks.reach`
_HELD = 4_000  # of the others, at most
_BATCH, _LOOKS = 64, 10  # frames of a step, and looks at the inputs held out
_RATE = 0.004  # pulses a step, at first

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A row of `benchmarks.reach`, and how it is learned: so many steps, on ``mixed`` inputs where
    they are few."""

    network: str
    ratio: float
    steps: int
    mixed: bool = False

    @property
    def row(self) -> Row:
        """What is asked, and of what."""
        return next(r for r in ROWS if (r.name, r.ratio) == (self.network, self.ratio))


CASES = (
    Case("DS-CNN (KWS)", 2, 400, mixed=True),
    Case("DS-CNN (KWS)", 3, 400, mixed=True),
    Case("DS-CNN (KWS)", 5, 400, mixed=True),
    Case("ResNet8", 2, 200, mixed=True),
    Case("ResNet8", 3, 200, mixed=True),
    Case("mnist-8", 5, 600),
    Case("tiny CNN", 2, 600),
    Case("LeNet-5", 5, 600),
    Case("LeNet-5", 10, 600),
    Case("network A", 5, 600),
    Case("network A", 10, 600),
    Case("network A", 20, 600),
)


class _Real:
    """Real weights where a network has pulses, and biases, as PyTorch learns them: in pulses, and
    in steps of the layer's output."""

    def __init__(self, graph: Graph, network: Network) -> None:
        layers = {layer.name: layer for layer in network.layers}
        self.graph, self.weights, self.biases = graph, {}, {}
        for step in graph.steps:
            if not step.weighted:
                continue
            layer: Any = layers[step.name]
            gain = np.maximum(np.abs(layer.gain).mean(axis=1, keepdims=True), 1e-12)
            bias = layer.bias * (layer.output.scale / (1 << layer.shift))
            start = layer.y * np.repeat(layer.gain, layer.y.shape[1] // layer.gain.shape[1], axis=1)
            mask = (layer.y != 0) * gain
            self.weights[step.name] = self._learned(start, mask)
            self.biases[step.name] = self._learned(bias, np.full(len(bias), layer.output.scale))

    def _learned(self, start: npt.NDArray[Any], unit: npt.NDArray[Any]) -> tuple[Any, Any, Any]:
        """(start, unit, change in units)."""
        tensors = [self.graph.tensor(a.astype(np.float32)) for a in (start, unit)]
        change = self.graph.tensor(np.zeros(start.shape, dtype=np.float32)).requires_grad_()
        return tensors[0], tensors[1], change

    @property
    def changes(self) -> list[Any]:
        """What is learned."""
        return [change for _, _, change in (*self.weights.values(), *self.biases.values())]

    def outputs(self, x: Any) -> Any:
        """Outputs (frames, C)."""

        def made(step: Step) -> tuple[Any, Any]:
            pairs = self.weights[step.name], self.biases[step.name]
            weight, bias = (start + unit * change for start, unit, change in pairs)
            return weight, bias

        return self.graph.run(x, made)


def _error(outputs: Any, exact: Any) -> Any:
    """Squared, each frame's mean taken away, over the variance of the exact ones."""
    difference = outputs - exact
    spread = exact - exact.mean(dim=1, keepdim=True)
    return (difference - difference.mean(dim=1, keepdim=True)).square().mean() / spread.var()


def learned(case: Case, graph: Graph, network: Network, x: Floats, held: Floats) -> _Real:
    """The best real weights on the network's supports."""
    import torch

    torch.manual_seed(0)
    rng, real = np.random.default_rng(0), _Real(graph, network)
    adam = torch.optim.Adam(real.changes, lr=_RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, case.steps)
    judges, best, kept = graph.tensor(held), math.inf, []
    exact = graph.outputs(judges)
    for number in range(case.steps + 1):
        if number % (case.steps // _LOOKS) == 0:
            with torch.no_grad():
                error = float(_error(real.outputs(judges), exact))
            if error < best:
                best, kept = error, [change.detach().clone() for change in real.changes]
        batch = x[rng.choice(len(x), _BATCH, replace=False)]
        if case.mixed:
            part = rng.uniform(0.5, 1, (_BATCH // 2, *(1,) * (batch.ndim - 1))).astype(np.float32)
            batch[::2] = part * batch[::2] + (1 - part) * batch[1::2]
        frames = graph.tensor(batch)
        adam.zero_grad()
        _error(real.outputs(frames), graph.outputs(frames)).backward()
        adam.step()
        falling.step()
    with torch.no_grad():
        for change, state in zip(real.changes, kept, strict=True):
            change.copy_(state)
    return real


def measure(case: Case, path: Path, train: Data, test: Data) -> dict[str, Any]:
    """Codes, and the best real weights on their supports, judged on the test inputs."""
    import torch

    started = time.process_time()
    scale = 255.0 if "--input-scale 255" in case.row.options else 1.0
    order = np.random.default_rng(0).permutation(len(train.x))
    size = int(_PART * len(order))
    x, held = train.x[np.sort(order[:size])], train.x[np.sort(order[size:][:_HELD])]
    model = load_model(path)
    network = quantize(model, calibration=x, ratio=case.ratio, input_scale=scale)
    graph = Graph(model)
    shaped = [(a / np.float32(scale)).astype(np.float32).reshape(len(a), *model.shape)
              for a in (x, held, test.x)]  # fmt: skip
    real = learned(case, graph, network, *shaped[:2])
    found: dict[str, list[Any]] = {"exact": [], "codes": [], "real": []}
    for start in range(0, len(test.x), 250):
        part = slice(start, start + 250)
        frames = graph.tensor(shaped[2][part])
        integers = network.predict(network.quantize_input(test.x[part], scale))
        with torch.no_grad():
            found["exact"].append(graph.outputs(frames).numpy())
            found["real"].append(real.outputs(frames).numpy())
        found["codes"].append(network.real(integers).reshape(len(integers), -1))
    exact, codes, best = (np.concatenate(parts) for parts in found.values())
    return {
        "codes": judged(exact, codes, test.y),
        "real": judged(exact, best, test.y),
        "n_over_k": network.n_over_k,
        "processor_seconds": round(time.process_time() - started, 1),
    }


_ABOUT = """\
# Benchmark: what stops codes of few pulses

Of rows that miss [what is asked](benchmarks-reach.md): the best *real* weights on the supports of
the codes, which have pulses wherever they are best (those of that page are even over the lanes,
which costs network A 0.2 points at 10 and 0.3 at 20) and come from the same four fifths of the
calibration inputs, without distorted copies. They and all biases are trained together against the
float model's outputs
(Adam, 64 inputs a step, of KWS and ResNet8 half of them mixtures of two; activations are not
rounded); the state of the least error on inputs held out is kept, and judged on the test inputs.
*lost*: points of right answers; *only*: inputs right in the float model alone, and in the other
alone; *same*: answers as float's; *error*: root mean squared, over the deviation of float's
outputs. Where real weights lose more than is asked, whole pulses on these supports can't be
expected to lose less: what stops them is which weights stay. One draw; a limit as one run found it,
and no proof. Made, with PyTorch, by

    python -m benchmarks.limits --models FOLDER --mnist FOLDER --kws FOLDER --cifar FILE.npz \\
        --page docs/benchmarks-limits.md

| network | N/K | asked | codes: lost | only | same | error | real weights: lost | only | same | error | frames | CPU s |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, in Markdown."""
    lines = [_line(case, results[case.row.key]) for case in CASES if case.row.key in results]
    missing = [f"{c.network} at {c.ratio:g}" for c in CASES if c.row.key not in results]
    if missing:
        lines += ["", f"Not measured: {', '.join(missing)}."]
    return _ABOUT + "\n".join(lines) + "\n"


def _line(case: Case, found: Mapping[str, Any]) -> str:
    asked = f"{case.row.asked:g} " + ("lost" if case.row.by == "lost" else "% right")
    cells = [case.network, f"{found['n_over_k']:.2f}", asked]
    for judgement in (found["codes"], found["real"]):
        frames = judgement["frames"]
        lost = 100 * (judgement["float_right"] - judgement["right"]) / frames
        cells += [f"{lost:.2f}", f"{judgement['only_float']}, {judgement['only_ours']}",
                  f"{100 * judgement['same'] / frames:.2f}",
                  f"{judgement['error_percent']:.2f}"]  # fmt: skip
    cells += [f"{found['codes']['frames']:,}", f"{found['processor_seconds']:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Runs what is missing, and writes the page."""
    parser = data_arguments(__doc__, RESULTS)
    parser.add_argument("--only", default="", help="only networks whose name begins so")
    parser.add_argument("--page", type=Path, help="page to write")
    args = parser.parse_args()
    for case in CASES if args.models else ():
        key = case.row.key
        if key in read(args.output) or not case.network.startswith(args.only):
            continue
        data = row_data(case.row, args)
        if data is None:
            continue
        print(f"{key} ...", flush=True)
        found = measure(case, args.models / case.row.file, *data)
        save(args.output, read(args.output) | {key: found})
        print(found, flush=True)
    if args.page:
        args.page.write_text(page(read(args.output)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
