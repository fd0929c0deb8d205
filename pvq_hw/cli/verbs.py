"""The verbs and their arguments; what a verb does is imported only when it runs."""

import argparse
import importlib
from pathlib import Path
from typing import Any

from pvq_hw.choices import FLOWS, GAINS, INTERFACES, LINKS, MENDS, OBJECTIVES, PLACERS, QUANTIZERS
from pvq_hw.cli.completion import board_names
from pvq_hw.cli.ui import Ui

__all__ = ["add_verbs", "run_verb"]

_CODE_HELP = "pulses of 1, or of powers of two; by default these where they save 3 %% of the cycles"
_PORT_HELP = "serial port, e.g. /dev/ttyUSB1; by default the ports on USB are asked for the board"


def run_verb(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Imports the verb's module and runs it; gives its JSON document and exit status."""
    module = importlib.import_module(f"pvq_hw.cli.{args.module}")
    document, status = module.run(args, ui)
    return document, status


def add_verbs(subparsers: Any) -> None:
    """Adds every verb that is built."""
    _demo(subparsers)
    _check(subparsers)
    _compile(subparsers)
    _tune(subparsers)
    _finetune(subparsers)
    _layer(subparsers)
    _simulate(subparsers)
    _build(subparsers)
    _update(subparsers)
    _load(subparsers)
    _verify(subparsers)
    _prove(subparsers)
    _report(subparsers)
    _export(subparsers)
    _program(subparsers)
    _run(subparsers)
    _selftest(subparsers)
    _boards(subparsers)
    _data(subparsers)
    _init(subparsers)
    _doctor(subparsers)


def _verb(subparsers: Any, name: str, text: str, module: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=text.split(";", maxsplit=1)[0], description=text[0].upper() + text[1:] + "."
    )
    parser.set_defaults(module=module)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument(
        "--junit", metavar="FILE", type=Path, help="write the outcome as JUnit XML, for CI"
    )
    return parser


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="an accelerator's folder")


def _into(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="its folder")


def _metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metric",
        metavar="M",
        type=_given,
        help="accuracy, rmse, auc or module:function, whose code is run; by default what fits "
        "outputs and labels",
    )


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", metavar="NAME", type=_given,
        help="of several outputs the one that labels belong to",
    )  # fmt: skip


def _given(text: str) -> str:
    """An argument that stands for something: an empty one would pass for one that was left out."""
    if not text:
        raise argparse.ArgumentTypeError("it must not be empty")
    return text


def _decide(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decide", metavar="RULE", type=_given,
        help="what the chip makes of the scores: argmax, top=3, above=0.5 (one threshold, or "
        "with commas one for each), or smoothed=8,0.5 (averages over 8 frames; another class takes "
        "over by more than 0.5)",
    )  # fmt: skip


def _target(parser: argparse.ArgumentParser, *, required: bool) -> None:
    board: Any = parser.add_argument(
        "--target",
        "--board",
        metavar="BOARD",
        required=required,
        help="one of those that `pvq-hw boards` lists, or a FILE.toml that describes another",
    )
    board.completer = board_names  # read by argcomplete


def _demo(subparsers: Any) -> None:
    p = _verb(subparsers, "demo", "the whole path on a bundled trained network", "demo")
    p.add_argument("-o", "--out", metavar="OUT", type=Path, default=Path("demo-out"))
    _target(p, required=False)
    p.add_argument("--no-build", action="store_true", help="stop before synthesis")


def _check(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "check",
        "whether a model will compile, and about how large and fast; in a second or two",
        "check",
    )
    p.add_argument("model", metavar="MODEL", type=Path, help="a .onnx or .npz file")
    _target(p, required=False)
    _engine(p)


def _engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        metavar="KIND|LAYER=KIND,...",
        help="folded; unrolled: a layer all at once, its weights as wires; depthwise: a window of "
        "one channel a cycle; shared: all layers, or those named that follow one another, in one "
        "core; by default, auto, whichever makes the network faster or fits",
    )


def _compile(subparsers: Any) -> None:
    p = _verb(
        subparsers, "compile", "turn a trained network into an accelerator's files", "compile"
    )
    p.add_argument("model", metavar="MODEL", type=Path, help="a .onnx, .tflite or .npz file")
    _target(p, required=False)
    _into(p)
    p.add_argument("--calibrate", metavar="TRAIN.npz", type=Path, help="inputs to calibrate with")
    p.add_argument(
        "--calibration-frames", metavar="N", type=int, help="inputs looked at (default 6000)"
    )
    p.add_argument(
        "--augment",
        metavar="KIND[=AMOUNT],...",
        type=_given,
        help="distort calibration inputs: shift, rotate, scale, shear, mirror, noise, mix",
    )
    p.add_argument("--evaluate", metavar="TEST.npz", type=Path, help="inputs and labels to test")
    _metric(p)
    _output(p)
    _decide(p)
    p.add_argument("--min-accuracy", metavar="P", type=float, help="percent; below it: exit 1")
    _quantization(p)
    _hardware(p)
    p.add_argument("--seed", type=int, help="default 0")
    p.add_argument("--config", metavar="FILE.toml", type=Path, help="options, also per layer")


def _quantization(p: argparse.ArgumentParser) -> None:
    """What decides a network's codes and formats."""
    p.add_argument(
        "--ratio",
        metavar="R",
        type=float,
        help="mean N/K to reach; without it and with inputs to calibrate with, a loss of 0.5 is "
        "aimed at, otherwise 10",
    )
    p.add_argument(
        "--max-loss",
        metavar="P",
        type=float,
        help="instead of a ratio: the points of accuracy that may be lost (of models without "
        "classes, percent); ratio and layers of 8-bit weights are chosen on inputs held out",
    )
    p.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help="what the choice within --max-loss is to be best at (default speed; size where a "
        "speed is asked for)",
    )
    p.add_argument(
        "--sweeps", metavar="N", type=int, help="of moves against the outputs (default 1)"
    )
    p.add_argument(
        "--quantizer",
        choices=QUANTIZERS,
        help="default calibrated; given: of a fine-tuned model, whose weights are codes",
    )
    p.add_argument("--gain", choices=GAINS, help="rule of the plain quantizer's gains")
    p.add_argument(
        "--mend",
        choices=MENDS,
        help="what the plain quantizer corrects by calibration inputs or drawn ones (default none)",
    )
    p.add_argument(
        "--input-scale", metavar="S", type=float, help="integer data is divided by it (default 1)"
    )
    p.add_argument("--activation-bits", metavar="B", type=int, help="default 8")
    p.add_argument(
        "--int8", metavar="LAYER[,LAYER]", help="layers that keep 8-bit weights; all: every one"
    )
    p.add_argument(
        "--only", metavar="LAYER[,LAYER]", help="make these pulses, the others keep 8-bit weights"
    )
    p.add_argument(
        "--keep-zeros", action="store_true", default=None, help="weights of 0 (pruned) stay 0"
    )
    p.add_argument(
        "--no-balanced",
        dest="balanced",
        action="store_false",
        default=None,
        help="pulses where they are nearest, not as many of a row in every lane",
    )


def _hardware(p: argparse.ArgumentParser) -> None:
    """What decides how the layers are computed."""
    p.add_argument(
        "--inferences-per-second",
        metavar="R",
        type=float,
        help="plan the smallest accelerator that is as fast (default: as fast as the board allows)",
    )
    p.add_argument(
        "--max-latency",
        metavar="T",
        help="the same for a latency: 50us, 1.5ms, or microseconds",
    )
    p.add_argument("--lanes", metavar="P[,P...]", help="lanes of each layer; planned by default")
    p.add_argument(
        "--code",
        choices=("auto", "pvq", "pulse", "shifted"),
        help="pulses of 1 or of powers of two; pvq (default): these where they save cycles; "
        "auto: 8-bit weights too, where pulses are more than weights and no faster or smaller",
    )
    p.add_argument(
        "--frames", metavar="V|auto", help="frames side by side (default 1); auto: most a second"
    )
    p.add_argument(
        "--windows",
        metavar="V|LAYER=V,...",
        help="windows of a map that convolutions take side by side; planned by default",
    )
    p.add_argument(
        "--stream-width",
        metavar="W|LAYER=W,...",
        help="results that leave a layer in a transfer; planned by default",
    )
    p.add_argument(
        "--digit",
        metavar="B|LAYER=B,...",
        help="bits that the adders of unrolled layers take a cycle: 1, 2, 4, 8, or 0 for all at "
        "once; planned by default",
    )
    p.add_argument(
        "--input-width",
        metavar="W",
        type=int,
        help="activations in a transfer of the network's input (default 1, as boards have it)",
    )
    p.add_argument(
        "--output-width",
        metavar="W",
        type=int,
        help="results in a transfer of the network's output (default 1)",
    )
    p.add_argument("--clock-mhz", metavar="F", type=float, help="the board's clock to plan for")
    p.add_argument(
        "--link", choices=LINKS, help="what a host talks to the board over (default uart)"
    )
    p.add_argument(
        "--baud",
        metavar="B",
        type=int,
        help="bits a second of the link; by default the board's own, of SPI a sixth of the clock",
    )
    _engine(p)
    p.add_argument(
        "--code-memory",
        metavar="KIND|LAYER=KIND,...",
        help="block, spram, or flash of a shared engine, which reads it for every frame (by "
        "default, auto, the first that holds them)",
    )
    p.add_argument(
        "--flash-bits",
        metavar="B",
        type=int,
        help="bits a clock of codes from the flash: 1, 2 (by default) or 4, whose pins and "
        "quad-enable bit the board must have; asks for --code-memory flash",
    )
    p.add_argument(
        "--multiplier",
        metavar="KIND|LAYER=KIND,...",
        help="dsp or logic (by default, auto, LUTs where DSP blocks are too few)",
    )
    p.add_argument(
        "--updatable",
        action="store_true",
        default=None,
        help="weights in block RAM, so that `pvq-hw update` changes them without place and route",
    )
    p.add_argument(
        "--live",
        action="store_true",
        default=None,
        help="updatable, and `pvq-hw load` changes the weights of a board while it runs",
    )
    p.add_argument(
        "--measure",
        action="store_true",
        default=None,
        help="the board repeats a frame by itself and counts cycles, for `pvq-hw selftest` "
        "(about 310 LUTs)",
    )
    p.add_argument(
        "--spare",
        metavar="P",
        type=int,
        help="percent of words and sums that --updatable keeps free for other weights (default 5)",
    )
    p.add_argument(
        "--window-pulses",
        metavar="N",
        type=int,
        help="pulses of a convolution's row for each lane from which they are spread evenly over "
        "the lanes (default 8): fewer take fewer cycles and cost accuracy",
    )
    p.add_argument(
        "--share-sums",
        metavar="P",
        type=float,
        help="percent by which sums of unrolled layers may turn away from what they were so that "
        "rows share more adders (default 0)",
    )
    p.add_argument(
        "--gain-digits",
        metavar="D",
        type=int,
        help="signed digits to which gains of unrolled layers are rounded, 1 to 4, since as wires "
        "they are an adder for each further one (default 0: all)",
    )


def _tune(subparsers: Any) -> None:
    p = _verb(subparsers, "tune", "search encoding, N/K, widths and lanes for a board", "tune")
    p.add_argument("model", metavar="MODEL", type=Path, help="a .onnx, .tflite or .npz file")
    p.add_argument(
        "--data", metavar="DATA.npz", type=Path, required=True, help="training inputs and labels"
    )
    p.add_argument("--evaluate", metavar="TEST.npz", type=Path, help="judges the chosen one only")
    _target(p, required=True)
    p.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="of the results")
    p.add_argument(
        "--min-accuracy", metavar="P", type=float, help="percent to reach (RMSE: to stay below)"
    )
    p.add_argument(
        "--max-loss",
        metavar="P",
        type=float,
        help="points of accuracy that may be lost, instead: starts from what compile --max-loss "
        "chooses",
    )
    p.add_argument(
        "--engine",
        choices=("auto", "folded"),
        default="auto",
        help="folded: no layer is unrolled where that would make the network faster",
    )
    p.add_argument("--budget-cycles", metavar="C", type=int, help="most cycles between frames")
    p.add_argument("--trials", metavar="N", type=int, default=64, help="default 64")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--build-finalists", metavar="N", type=int, default=0, help="place and route the best N"
    )
    p.add_argument("--seeds", metavar="S", type=int, default=3, help="of place and route, for each")
    _metric(p)
    _output(p)
    p.add_argument(
        "--input-scale", metavar="S", type=float, default=1.0, help="integer data is divided by it"
    )
    p.add_argument("--workers", metavar="W", type=int, help="processes; one per core by default")
    p.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler instead of processes")
    p.add_argument("--resume", action="store_true", help="go on with the search in DIR")


def _finetune(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "finetune",
        "train a network at few pulses; needs PyTorch (pvq-hw[train])",
        "finetune",
    )
    p.add_argument("model", metavar="MODEL", type=Path, help="a .onnx, .tflite or .npz file")
    p.add_argument(
        "--data", metavar="TRAIN.npz", type=Path, required=True, help="training inputs and labels"
    )
    p.add_argument(
        "-o", "--out", metavar="TUNED", type=Path, required=True, help="a .onnx or .npz file"
    )
    p.add_argument("--evaluate", metavar="TEST.npz", type=Path, help="inputs and labels to test")
    _metric(p)
    _target(p, required=False)
    p.add_argument("--ratio", metavar="R", type=float, help="mean N/K to reach (default 10)")
    p.add_argument(
        "--input-scale", metavar="S", type=float, help="integer data is divided by it (default 1)"
    )
    p.add_argument("--activation-bits", metavar="B", type=int, help="default 8")
    p.add_argument("--config", metavar="FILE.toml", type=Path, help="options, also per layer")
    p.add_argument("--seed", type=int, help="default 0")
    p.add_argument("--epochs", metavar="E", type=int, help="passes over the data")
    p.add_argument("--batch", metavar="B", type=int, help="frames of a step")
    p.add_argument(
        "--rate", metavar="R", type=float,
        help="in pulses a step; 0: codes stay. With it, or --side-rate, --distill or --by-row, the "
        "recipe is yours; by default it is picked by a fifth of the data",
    )  # fmt: skip
    p.add_argument(
        "--distill", metavar="D", type=float, help="0 learns labels only, 1 the float network only"
    )
    p.add_argument("--shift", metavar="S", type=int, help="moves maps at random, in pixels")
    p.add_argument("--side-rate", metavar="R", type=float, help="learning rate of gains, biases")
    p.add_argument("--mirror", action="store_true", help="mirrors maps at random, left to right")
    p.add_argument(
        "--augment", metavar="KINDS",
        help="varies inputs anew for each batch: some of shift, rotate, scale, shear, mirror, "
        "noise, mix, as in shift,rotate=10, or module:function, which takes inputs and a generator",
    )  # fmt: skip
    p.add_argument("--half", action="store_true", help="computes with bfloat16: faster, coarser")
    p.add_argument(
        "--by-row", action="store_true", help="measures steps by rows: many inputs, few pulses"
    )
    p.add_argument("--threads", metavar="T", type=int, help="of PyTorch (default 1)")


def _layer(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "layer",
        "one layer's core: Verilog, memory files, golden vectors and a testbench",
        "layer",
    )
    p.add_argument(
        "weights",
        metavar="WEIGHTS.npy",
        type=Path,
        help="float matrix (rows, columns), or of a convolution (rows, channels, kernel)",
    )
    _into(p)
    _target(p, required=False)
    p.add_argument("--k", type=int, help="pulses of each row")
    p.add_argument("--ratio", metavar="R", type=float, help="N/K instead of --k")
    p.add_argument("--gain", choices=GAINS, default="least-squares")
    p.add_argument("--bias", metavar="BIAS.npy", type=Path, help="float vector (rows,)")
    p.add_argument("--lanes", metavar="P", type=int, default=8)
    p.add_argument(
        "--no-balanced",
        dest="balanced",
        action="store_false",
        help="nearest codewords, which lanes may wait for: by default all lanes have as many "
        "pulses of a row",
    )
    p.add_argument("--frames", metavar="V", type=int, default=1, help="frames in each transfer")
    p.add_argument(
        "--engine",
        choices=("folded", "unrolled", "depthwise"),
        default="folded",
        help="unrolled: all at once, without lanes, its weights as wires",
    )
    p.add_argument(
        "--digit", metavar="B", type=int,
        help="bits that an unrolled layer's adders take a cycle: 1, 2, 4, 8, or 0 for all at once",
    )  # fmt: skip
    p.add_argument(
        "--map", metavar="H,W", help="size of the map: weights (rows, channels, kernel) are then "
        "those of a convolution; W alone of a 1-D one",
    )  # fmt: skip
    p.add_argument("--stride", metavar="N[,N]", help="of the window (default 1)")
    p.add_argument("--pads", metavar="N[,N,..]", help="zeros around the map: top, bottom, left, "
                   "right, or one for all (default 0)")  # fmt: skip
    p.add_argument("--dilation", metavar="N[,N]", help="of the window (default 1)")
    p.add_argument("--groups", metavar="G", type=int, help="of channels (default 1)")
    p.add_argument("--windows", metavar="V", type=int, help="windows of the map side by side")
    p.add_argument("--x-bits", metavar="B", type=int, default=8, help="width of an activation")
    p.add_argument("--x-signed", action="store_true", help="activations are signed")
    p.add_argument("--out-bits", metavar="B", type=int, default=16, help="width of a result")
    p.add_argument("--relu", action="store_true", help="unsigned results, negative ones are 0")
    p.add_argument(
        "--activation", metavar="NAME", default="",
        help="relu, or a function by a table: tanh, sigmoid, gelu, silu, leaky_relu, ...",
    )  # fmt: skip
    p.add_argument(
        "--x-scale", metavar="S", type=float, default=1.0,
        help="what an activation of 1 stands for (default 1)",
    )  # fmt: skip
    p.add_argument(
        "--table-bits", metavar="B", type=int, default=10, help="of sums in a table (default 10)"
    )
    p.add_argument(
        "--table-range", metavar="R", type=float,
        help="sums saturate at it in a table; by default none does",
    )  # fmt: skip
    p.add_argument(
        "--multiplier", choices=("auto", "dsp", "logic"), default="auto",
        help="DSP blocks or LUTs (default: DSP blocks, where there are any)",
    )  # fmt: skip
    p.add_argument(
        "--int8", action="store_true", help="plain 8-bit weights, without --k or --ratio"
    )
    p.add_argument(
        "--code-memory", choices=("auto", "block", "spram"), default="auto",
        help="where the codes are (default: SPRAM where it must be)",
    )  # fmt: skip
    p.add_argument("--code", choices=("auto", "pulse", "shifted"), help=_CODE_HELP)
    p.add_argument("--vectors", metavar="N", type=int, default=16, help="golden vectors")
    p.add_argument("--seed", type=int, default=0)


def _simulate(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "simulate",
        "run data through simulated RTL; every layer's outputs are compared with the golden model",
        "simulate",
    )
    _folder(p)
    p.add_argument("--data", metavar="DATA.npz", type=Path, required=True)
    p.add_argument("--count", metavar="N", type=int, help="frames; all by default")
    _metric(p)
    _output(p)
    p.add_argument("--simulator", choices=("compiled", "amaranth", "icarus"), default="compiled")
    p.add_argument("--stalls", action="store_true", help="random stalls at both ends")
    p.add_argument("--seed", type=int, default=0, help="of the stalls")
    p.add_argument(
        "--scenarios",
        action="store_true",
        help="then pauses of all kinds, a blocked output, and resets at every phase of a frame",
    )


def _build(subparsers: Any) -> None:
    p = _verb(subparsers, "build", "bitstream, timing and utilization", "build")
    _folder(p)
    p.add_argument("--seeds", metavar="N", type=int, default=3, help="seeds tried to meet timing")
    p.add_argument("--seed", type=int, default=1, help="the first of them")
    p.add_argument("--best", action="store_true", help="try all seeds and keep the fastest")
    p.add_argument("--jobs", metavar="N", type=int, default=1, help="seeds at a time")
    p.add_argument(
        "--clock",
        metavar="MHZ|max",
        help="set the PLL to this clock instead of the plan's, or to the highest that a seed meets",
    )
    p.add_argument(
        "--placer",
        choices=PLACERS,
        default=PLACERS[0],
        help="nextpnr's placer: static or sa where heap finds no end (default heap)",
    )


def _update(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "update",
        "other weights for an accelerator compiled with --updatable; no place and route",
        "update",
    )
    _folder(p)
    p.add_argument(
        "--model", metavar="NEW", type=Path, required=True, help="a model of the same shape"
    )
    p.add_argument("--calibrate", metavar="TRAIN.npz", type=Path, help="inputs to calibrate with")
    p.add_argument("--evaluate", metavar="TEST.npz", type=Path, help="inputs and labels to test")
    _metric(p)
    p.add_argument("--min-accuracy", metavar="P", type=float, help="percent; below it: exit 1")


def _load(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "load",
        "other weights into a board that runs an accelerator compiled with --live",
        "load",
    )
    _folder(p)
    p.add_argument("--port", metavar="P", help="serial port, e.g. /dev/ttyUSB1")
    p.add_argument(
        "--weights",
        metavar="NEW",
        type=Path,
        help="a folder in which `pvq-hw update` put other weights, or a file that --pack wrote; by "
        "default those of OUT",
    )
    p.add_argument("--pack", metavar="FILE", type=Path, help="write the weights as one file")
    p.add_argument(
        "--keep",
        action="store_true",
        help="with two banks: load the second one, so that a reset brings the bitstream's weights",
    )
    p.add_argument("--timeout", metavar="S", type=float, default=2.0, help="seconds for a reply")


def _verify(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "verify",
        "check files against the manifest and decoded codes against the network",
        "verify",
    )
    _folder(p)
    p.add_argument("--model", metavar="MODEL", type=Path, help="recompute every figure from it")
    p.add_argument(
        "--data", metavar="DATA.npz", type=Path, help="say what each layer and row loses on it"
    )
    _metric(p)
    p.add_argument(
        "--bitstream", action="store_true", help="unpack the bitstream and compare its memories"
    )
    p.add_argument(
        "--log", metavar="FILE", type=Path, help="write each code with its weight, .csv or .json"
    )


def _prove(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "prove",
        "prove the Verilog, and a build's netlist, for all inputs; names what is left open",
        "prove",
    )
    _folder(p)
    p.add_argument("--fresh", action="store_true", help="prove again what proof.json has")


def _report(subparsers: Any) -> None:
    p = _verb(subparsers, "report", "write report.json and report.html", "report")
    _folder(p)


def _export(subparsers: Any) -> None:
    p = _verb(
        subparsers, "export", "the accelerator as a core of another flow, into a folder", "export"
    )
    _folder(p)
    p.add_argument("-o", "--into", metavar="DIR", type=Path, required=True, help="its folder")
    p.add_argument(
        "--flow",
        choices=FLOWS,
        required=True,
        help="device: in the device's own blocks, for Yosys and nextpnr; board: with its board's "
        "top, from the pins",
    )
    p.add_argument(
        "--interface",
        choices=INTERFACES,
        default="stream",
        help="valid, ready and payload (default); AXI4-Stream; or that with registers on AXI4-Lite "
        "or Wishbone: identity, status, counts of frames and cycles",
    )
    p.add_argument(
        "--name",
        default="accelerator",
        help="of the module; all modules and files begin with it",
    )


def _program(subparsers: Any) -> None:
    p = _verb(subparsers, "program", "load the bitstream onto the board", "program")
    _folder(p)
    p.add_argument(
        "--port", metavar="P", help="serial port over which to load codes, instead of into flash"
    )


def _run(subparsers: Any) -> None:
    p = _verb(subparsers, "run", "send data to a programmed board over its serial port", "run")
    _folder(p)
    p.add_argument("--port", metavar="P", help=_PORT_HELP)
    p.add_argument("--data", metavar="DATA.npz", type=Path, required=True)
    p.add_argument("--count", metavar="N", type=int, help="frames; all by default")
    _metric(p)
    _output(p)
    p.add_argument("--timeout", metavar="S", type=float, default=2.0, help="seconds for a reply")
    p.add_argument("--load", action="store_true", help="load the codes over the serial port first")


def _selftest(subparsers: Any) -> None:
    p = _verb(
        subparsers,
        "selftest",
        "test a programmed board with the golden vectors of its folder",
        "selftest",
    )
    _folder(p)
    p.add_argument("--port", metavar="P", help=_PORT_HELP)
    p.add_argument("--frames", metavar="N", type=int, default=100, help="vectors, repeated to N")
    p.add_argument("--timeout", metavar="S", type=float, default=2.0, help="seconds for a reply")
    p.add_argument(
        "--bundle",
        metavar="FILE.zip",
        type=Path,
        help="write versions, hashes, counters and the bytes of the line, to send on",
    )


def _boards(subparsers: Any) -> None:
    p = _verb(subparsers, "boards", "the boards, and how a network would run on each", "boards")
    p.add_argument("boards", metavar="BOARD", nargs="*", help="some of them, or FILE.toml")
    p.add_argument("--model", metavar="MODEL", type=Path, help="a .onnx or .npz file; the digits")
    p.add_argument("--ratio", metavar="R", type=float, help="mean N/K (default 10; digits: 1.5)")
    p.add_argument("--constraints", metavar="DIR", type=Path, help="write a pin file for each")


def _data(subparsers: Any) -> None:
    p = _verb(subparsers, "data", "make DATA.npz from idx, npz or npy files", "data")
    p.add_argument("files", metavar="FILES", type=Path, nargs="+", help="inputs, then labels")
    p.add_argument("-o", "--out", metavar="DATA.npz", type=Path, required=True)
    p.add_argument("--keys", metavar="X[,Y]", help="arrays to take from an npz file")
    p.add_argument("--count", metavar="N", type=int, help="the first N frames")
    p.add_argument("--shape", metavar="A,B,..", help="shape of a frame")


def _init(subparsers: Any) -> None:
    p = _verb(
        subparsers, "init", "a project that checks a network in continuous integration", "init"
    )
    p.add_argument("folder", metavar="DIR", type=Path, help="new or empty")
    p.add_argument("--model", metavar="MODEL", type=Path, help="copied; the digits by default")
    p.add_argument("--train", metavar="TRAIN.npz", type=Path, help="inputs to calibrate with")
    p.add_argument("--test", metavar="TEST.npz", type=Path, help="inputs and labels to test with")
    _target(p, required=False)
    p.add_argument("--ratio", metavar="R", type=float, help="mean N/K (default 10; digits: 1.5)")
    p.add_argument("--input-scale", metavar="S", type=float, help="what integer data is divided by")
    p.add_argument("--min-accuracy", metavar="P", type=float, help="percent; below it CI fails")


def _doctor(subparsers: Any) -> None:
    p = _verb(subparsers, "doctor", "what is installed, and what mends the rest", "doctor")
    p.add_argument("--warm-up", action="store_true", help="compile now what is compiled once")
