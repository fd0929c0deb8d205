"""An output folder as a value: what the verbs do with it."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.model.objects import model_file
from pvq_hw.naming import quoted
from pvq_hw.network.network import Network
from pvq_hw.output.build_record import BUILD, read_build
from pvq_hw.output.folder import OutputFolder
from pvq_hw.output.manifest import check_files, load_manifest
from pvq_hw.output.report import document_of, read_report, write_report
from pvq_hw.outputs import split_outputs
from pvq_hw.plan.image import Image
from pvq_hw.plan.plan import Plan
from pvq_hw.progress import Steps
from pvq_hw.tables import Table

__all__ = ["Accelerator", "load"]


Inputs = npt.ArrayLike | Mapping[str, npt.ArrayLike]
"""Frames of a network's input, or of its several inputs by their names."""


def load(out: str | os.PathLike[str]) -> "Accelerator":
    """The accelerator in an output folder.

    Raises InputError when there is none, or when a file that its manifest covers has changed.
    """
    return Accelerator(out)


class Accelerator:
    """An output folder and what can be done with it.

    Parameters
    ----------
    out : path
        Every file that its manifest covers is compared with its hash there, once.

    Attributes
    ----------
    network : Network
        The integer network; ``predict`` and ``trace`` are its golden model's.
    plan : Plan
    image : Image
    manifest : dict
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self._folder = OutputFolder(out)
        self.out = self._folder.check()
        self.manifest: Mapping[str, Any] = load_manifest(self.out)
        check_files(self.out, self.manifest)

    @cached_property
    def network(self) -> Network:
        """The integer network."""
        return Network.load(self.out / "network")

    @cached_property
    def plan(self) -> Plan:
        """Lanes, cycles and resources."""
        return Plan.load(self.out / "plan.json")

    @cached_property
    def image(self) -> Image:
        """Memory contents."""
        return Image.load(self.out, self.plan)

    @property
    def input_scale(self) -> float:
        """What integer data is divided by, as it was when the model was compiled."""
        return self.network.input_scale

    def quantize_input(self, x: Inputs) -> npt.NDArray[np.int64]:
        """Data (frames, ...) as the integers that the accelerator takes; of a model of several
        inputs, arrays by their names, ``network.inputs``."""
        return self.network.quantize_input(x, self.input_scale)

    def predict(self, x: Inputs) -> Any:
        """What the accelerator says of data (frames, ...), in the model's own unit.

        Gives float64 (frames, \\*shape), channels last: the integers of `predict_integers` times
        the output's scale. The final operations that a model file has and an accelerator leaves
        out (``network.dropped``, such as Softmax) are not applied. A model of several outputs
        gives a dict of such arrays by the outputs' names, ``network.outputs``.
        """
        integers = self.network.predict(self.quantize_input(x))
        real = self.network.real(integers)
        if self.network.outputs:
            return split_outputs(self.network.outputs, real)
        return real.reshape(integers.shape)

    def predict_integers(self, x: Inputs) -> Any:
        """The golden model on data (frames, ...): the very integers that the circuit gives,
        (frames, \\*shape), channels last; of a model of several outputs a dict by their names."""
        integers = self.network.predict(self.quantize_input(x))
        if self.network.outputs:
            return split_outputs(self.network.outputs, integers)
        return integers

    def trace(self, x: Inputs, *, integers: bool = False) -> dict[str, npt.NDArray[Any]]:
        """Every layer's outputs by the layer's name, in order; as `predict` gives the last one's,
        or as ``integers``. Several outputs of a model lie side by side in the last one's, (frames,
        n), as in the stream."""
        units = {layer.name: self.network.unit(layer) for layer in self.network.layers}
        found = self.network.trace(self.quantize_input(x))
        return {name: out if integers else out * units[name] for name, out in found.items()}

    # -- for people -----------------------------------------------------------------------------

    def table(self) -> Table:
        """What was compiled, measured and built so far."""
        plan = self.plan.table()
        known, lines = read_report(self.out), list(plan.lines)
        accuracy = self.manifest["extra"].get("accuracy")
        if isinstance(accuracy, Mapping):
            figures = [f"{key} {accuracy[key]:.4g}" for key in ("float", "pvq")
                       if isinstance(accuracy.get(key), int | float)]  # fmt: skip
            lines.insert(0, (str(accuracy.get("metric", "accuracy")), ", ".join(figures)))
        simulated = known.get("simulate", {})
        if simulated:
            lines.append(("simulated", f"{simulated['mismatches']:,} mismatches in "
                          f"{simulated['outputs_compared']:,} outputs"))  # fmt: skip
        built = known.get("build", {})
        if built:
            lines.append(("built", f"{built['fmax_mhz']:.1f} MHz"))
        title = f"{self.network.name} on {self.plan.target.board}, in {self.out}"
        return Table(title, lines, plan.header, plan.rows)

    def summary(self) -> str:
        """What was compiled, measured and built so far, and a line for each core."""
        return self.table().text()

    def __repr__(self) -> str:
        return (f"<Accelerator {quoted(self.network.name)} on {self.plan.target.name}, "
                f"in {str(self.out)!r}>")  # fmt: skip

    def _repr_html_(self) -> str:
        return self.table().html()

    def simulate(
        self,
        x: Inputs,
        *,
        simulator: str = "compiled",
        stalls: bool = False,
        seed: int = 0,
        steps: Steps | None = None,
        labels: npt.NDArray[Any] | None = None,
        metric: str | None = None,
        scenarios: bool = False,
        output: str | None = None,
    ) -> dict[str, Any]:
        """Runs data through simulated RTL and compares every layer's outputs with the golden model.

        Returns the document of ``pvq-hw simulate``: ``frames``, ``outputs_compared``,
        ``mismatches``, ``interval_cycles``, ``latency_cycles`` (as simulated), and
        ``accuracy.simulated`` where labels are given, by ``metric`` or what fits them; of several
        outputs they belong to ``output``, or to the one that `compile` was told. With
        ``scenarios``, the first frames also go through every scenario of `pvq_hw.engine.scenarios`.
        Writes ``simulation.json``.
        """
        from sim.flow import simulate_output

        told = steps or Steps()
        return simulate_output(
            self, x, simulator, stalls, seed, told, labels, metric, scenarios, output
        )

    def prove(self, *, steps: Steps | None = None, fresh: bool = False) -> dict[str, Any]:
        """Proves the exported Verilog for all inputs, as far as `sim.prove` reaches, and that the
        netlist of a build is its design.

        Returns the document of ``pvq-hw prove``, which names what is proven, what is not and what
        is wrong, and writes it to ``proof.json``. Parts that an earlier proof of the same files by
        the same tools has shown are kept, unless ``fresh``.
        """
        from sim.prove import prove_output

        return prove_output(self, steps or Steps(), fresh=fresh)

    def build(
        self,
        *,
        seeds: Sequence[int] = (1, 2, 3),
        steps: Steps | None = None,
        every_seed: bool = False,
        jobs: int = 1,
        clock: float | str | None = None,
        placer: str = "heap",
    ) -> dict[str, Any]:
        """Bitstream, timing and utilization into ``OUT/build``: the document of the verb.

        The first seed that meets the clock ends it, unless ``every_seed`` is to be known; then the
        fastest is kept. ``jobs`` seeds run at a time, which changes nothing but the time it takes.
        With a ``clock``, MHz or ``"max"``, the PLL is set to it, or to the highest clock that is
        met, and the plan has that clock from then on. ``placer`` is nextpnr's: ``"heap"``,
        ``"sa"`` or ``"static"``.
        """
        from gateware.board.flow import build_output

        told = steps or Steps()
        document = build_output(
            self, seeds, told, every_seed=every_seed, jobs=jobs, clock=clock, placer=placer
        )
        if clock is not None:
            self.__dict__.pop("plan", None)
            self.manifest = load_manifest(self.out)
        return document

    def verify(
        self,
        model: Any = None,
        data: Data | None = None,
        *,
        example_inputs: Any = None,
        bitstream: bool = False,
    ) -> list[Any]:
        """What is wrong with the folder's files; with ``model``, a path or an object as
        `pvq_hw.api.compile` takes it, every figure is recomputed, and with ``data`` beside it what
        was fitted to such data; with ``bitstream``, the memories in it are compared.
        `pvq_hw.output.verify.examine_output` also says what was not checked."""
        from pvq_hw.model.own_graph import check_own_graph
        from pvq_hw.output.verify import verify_output

        if model is None:
            return verify_output(self.out, model=None, data=data, bitstream=bitstream)
        with model_file(model, example_inputs) as path:
            original = load_model(path)
            if data is not None:
                check_own_graph(path, original, data)
        return verify_output(self.out, model=original, data=data, bitstream=bitstream)

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        flow: str,
        interface: str = "stream",
        name: str = "accelerator",
    ) -> list[str]:
        """Writes the accelerator as a core of another flow (``"fusesoc"``, ``"edalize"``,
        ``"litex"``, ``"apio"``, ``"vivado"``) into ``folder``; gives the files' names. The
        ``interface`` is ``"stream"`` (valid, ready, payload), ``"axis"`` (AXI4-Stream) or ``"csr"``
        (with registers); every module and file begins with ``name``. Flow ``"device"``: in the
        device's own blocks, for Yosys and nextpnr; flow ``"board"``: with the top of its board,
        from the board's pins."""
        from gateware.export.flows import export_flow

        return export_flow(self, Path(folder), flow, interface=interface, name=name)

    def report(self) -> dict[str, Any]:
        """Writes ``report.json`` and ``report.html`` anew; gives their content.

        Raises InputError where there is a build and its files have changed.
        """
        if (self.out / BUILD).is_dir():
            read_build(self.out)
        with self._folder.update() as staging:
            known = self._known()
            write_report(staging, known)
        return known

    def update(self, fill: Callable[[Path], Mapping[str, Any]], *folders: str) -> dict[str, Any]:
        """Writes parts of the folder anew, then the report.

        ``fill(staging)`` writes the parts into an empty folder and gives what the report is to
        say of them; they take their place together, or not at all when it raises. ``folders`` are
        those among them; a file in one of them that no verb wrote is refused first.
        """
        with self._folder.update(*folders) as staging:
            parts = {name: dict(part) for name, part in fill(staging).items()}
            known = self._known() | parts
            write_report(staging, known)
        return parts

    def _known(self) -> dict[str, Any]:
        """The parts of the report so far; that of `compile` is made again from the files."""

        compiled = document_of(self.out, self.network, self.plan, self.manifest)
        return read_report(self.out) | {"compile": compiled}

    def require(self, what: str) -> Path:
        """A file of the folder; raises InputError where it is missing."""
        path = self.out / what
        if not path.is_file():
            raise InputError(f"{path} must exist; run pvq-hw build first")
        return path
