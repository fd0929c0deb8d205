"""An independent reference: plain integers, from the memory files and the specifications' JSON.

Shares no code with the golden model, the specifications or the circuits: it reads the files that
``$readmemh`` reads, walks every lane through its bank pulse by pulse as the circuit does, and
rounds and saturates by itself. Slow, and right in an evident way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pvq_hw.errors import CheckError, InputError
from pvq_hw.registry import Face

__all__ = [
    "ReferenceCore",
    "code_reference",
    "core_reference",
    "core_words",
    "load_reference",
    "read_hex",
    "reference_outputs",
    "unit_reference",
]


def read_hex(path: Path) -> list[int]:
    """Words of a ``$readmemh`` file without addresses; ``//`` starts a comment."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return [int(word, 16) for line in lines for word in line.partition("//")[0].split()]
    except (OSError, ValueError) as error:
        raise InputError(f"Memory file {path.name!r} must be hexadecimal words: {error}") from None


@dataclass(frozen=True)
class ReferenceCore:
    """One core: the JSON of its specification and the words of its three memories.

    ``codes`` are the words of the weights: pulses, plain ones, or those that are wires.
    """

    spec: dict[str, Any]
    codes: Sequence[int]
    mult: Sequence[int]
    bias: Sequence[int]

    def weights(self) -> Iterator[tuple[int, int, int]]:
        """Every plain weight as (row, column, weight), in the order of the words."""
        lanes, n = self.spec["lanes"], self.spec["n"]
        per_row = -(-n // lanes)
        for place, word in enumerate(self.codes):
            row, first = place // per_row, place % per_row * lanes
            # A part of a word is at its upper lanes.
            for lane in range(max(0, first + lanes - n), lanes):
                byte = (word >> (8 * lane)) % 256
                column = first + lane - max(0, first + lanes - n)
                yield row, column, byte - 256 * (byte >> 7)

    def constants(self, frame: Sequence[int]) -> list[int]:
        """Sums of an unrolled layer's groups, from its file of weights, a row after the other."""
        spec = self.spec
        n, groups, width = spec["n"], spec["groups"], spec["weight_width"]
        sums = [0] * (spec["rows"] * groups)
        for place, word in enumerate(self.codes):
            row, column = place // n, place % n
            weight = word - 2**width * (word >> (width - 1))
            sums[row * groups + column * groups // n] += weight * frame[column]
        for number in spec["inverted"]:
            sums[number] -= 1  # all bits of the negative inverted; the folded bias makes it good
        return sums

    def products(self, frame: Sequence[int]) -> list[int]:
        """Sums of plain weights times activations, which the circuit has made unsigned."""
        form = self.spec["x"]
        offset = 2 ** (form["bits"] - 1) if form["signed"] else 0
        sums = [0] * self.spec["rows"]
        for row, column, weight in self.weights():
            x = frame[column]
            sums[row] += weight * ((x + 1) // 2 if form["bits"] == 1 else x + offset)
        return sums

    def compute(self, frame: Sequence[int]) -> tuple[list[int], int]:
        """One frame's outputs, and the largest ``|sum|`` of any of its groups."""
        if self.spec["kind"] in ("shared", "maps"):
            maps = [list(frame)]
            for number, core in enumerate(self.parts()):
                read = [maps[k + 1] for k in core.spec["reads"] or [number - 1]]
                if core.spec.get("most"):
                    values, largest = core.maxima(read[0])
                else:
                    values, largest = (
                        core.over_map(read[0]) if len(read) == 1 else core.joined(read)
                    )
                if core.spec.get("table"):
                    entries = self.spec["tables"][core.spec["table"] - 1]
                    values = [entries[x - _bounds(core.spec["x"])[0]] for x in values]
                maps.append(core.pooled(values) if core.spec.get("pool") else values)
                beside = core.spec.get("beside")
                if beside and beside["map"] == number:
                    maps[-1] = _side_by_side(self.spec["layers"], maps[1:], number)
            return maps[-1], largest
        sums = core_reference.find(str(self.spec["kind"]), self.spec["name"])(self, frame)
        for value in (min(sums), max(sums)):
            self._check_fits(value, self.spec["acc_bits"])
        rows = range(self.spec["rows"])
        return [self._output(row, sums) for row in rows], max(map(abs, sums))

    def over_map(self, frame: Sequence[int]) -> tuple[list[int], int]:
        """`compute` of every window of a map, or of a frame that is none."""
        geometry, windows = self.spec.get("geometry"), [list(frame)]
        if geometry is not None and self.spec["parts"] > 1:
            return self._over_parts(list(frame))
        if geometry is not None and self.spec["chunk"]:
            size, channels = self.spec["chunk"], geometry["input_shape"][2]
            windows = [
                [x for at in range(first, len(frame), channels) for x in frame[at : at + size]]
                for first in range(0, channels, size)
            ]
        elif geometry is not None:
            windows = list(_windows({"geometry": geometry, "pad": 0}, list(frame)))
            channels = geometry["input_shape"][2]
            # A word has two channels, or one alone: the last one's other half has no weights.
            if channels % 2 and channels > 1:
                windows = [
                    [y for k, x in enumerate(w, 1) for y in ([x, 0] if k % channels == 0 else [x])]
                    for w in windows
                ]
        found = [self.compute(window) for window in windows]
        return [x for values, _ in found for x in values], max(most for _, most in found)

    def joined(self, maps: Sequence[Sequence[int]]) -> tuple[list[int], int]:
        """Sums of maps, pixel by pixel: as many rows of codes make an activation."""
        spec, count = self.spec, len(maps)
        channels, most = spec["geometry"]["input_shape"][2], 0
        each = replace(self, spec=spec | {"geometry": None})
        found = []
        for first in range(0, len(maps[0]), channels):
            pixels = [list(x[first : first + channels]) + [0] * (channels % 2) for x in maps]
            sums = each.sums([value for pixel in pixels for value in pixel])
            most = max(most, *map(abs, sums))
            for row in range(0, len(sums), count):
                terms = [s * m for s, m in zip(sums[row:], self.mult[row:][:count], strict=False)]
                found.append(self._finished(sum(terms), row + count - 1))
        return found, most

    def pooled(self, frame: Sequence[int]) -> list[int]:
        """The largest of two by two positions."""
        spec = self.spec
        (height, width, _), (tall, wide) = (
            spec["geometry"]["input_shape"],
            spec["geometry"]["kernel"],
        )
        (top, bottom), (left, right) = spec["geometry"]["pads"]
        down, across = spec["geometry"]["stride"]
        rows = (height + top + bottom - tall) // down + 1
        columns = (width + left + right - wide) // across + 1
        channels = len(frame) // (rows * columns)
        return [
            max(
                frame[((row + y) * columns + column + x) * channels + channel]
                for y in (0, 1)
                for x in (0, 1)
            )
            for row in range(0, rows - 1, 2)
            for column in range(0, columns - 1, 2)
            for channel in range(channels)
        ]

    def maxima(self, frame: Sequence[int]) -> tuple[list[int], int]:
        """Maxima of a map's windows, some channels after the others: as many rows of codes make an
        activation, the largest of their sums."""
        spec, count = self.spec, self.spec["most"]
        channels = spec["geometry"]["input_shape"][2]
        size, least = spec["chunk"] or channels, _bounds(spec["x"])[0]
        more = size % 2 if channels > 1 else 0
        each, found, most = replace(self, spec=spec | {"geometry": None}), [], 0
        for window in _windows({"geometry": spec["geometry"], "pad": least}, list(frame)):
            for first in range(0, channels, size):
                pixels = [window[at : at + size] for at in range(first, len(window), channels)]
                sums = each.sums([x for pixel in pixels for x in [*pixel, *[0] * more]])
                most = max(most, *map(abs, sums))
                for row in range(0, len(sums), count):
                    last = row + count - 1
                    largest = max(sums[row : row + count])
                    found.append(self._finished(largest * self.mult[last], last))
        return found, most

    def _over_parts(self, frame: list[int]) -> tuple[list[int], int]:
        """Every window of a map, some channels after the others, each with rows of its own."""
        spec, largest = self.spec, 0
        size, channels = spec["chunk"], spec["geometry"]["input_shape"][2]
        each, rows, found = len(self.codes) // spec["parts"], spec["rows"] // spec["parts"], []
        cores = [
            ReferenceCore(
                spec | {"rows": rows, "geometry": None},
                self.codes[k * each : (k + 1) * each],
                self.mult[k * rows : (k + 1) * rows],
                self.bias[k * rows : (k + 1) * rows],
            )
            for k in range(spec["parts"])
        ]
        for window in _windows({"geometry": spec["geometry"], "pad": 0}, frame):
            for first, core in zip(range(0, channels, size), cores, strict=True):
                own = [
                    x for at in range(first, len(window), channels) for x in window[at : at + size]
                ]
                values, most = core.compute(own)
                found += values
                largest = max(largest, most)
        return found, largest

    def parts(self) -> list["ReferenceCore"]:
        """The layers of a shared engine, each as a core with its part of the memories."""
        found, word, row = [], 0, 0
        for layer in self.spec["layers"]:
            spec = self.spec | {key: layer[key] for key in ("n", "rows", "x", "out", "shift")}
            own = ("geometry", "chunk", "parts", "reads", "most", "pool", "table", "beside")
            spec |= {"kind": "pulses"} | {key: layer.get(key) for key in own}
            if spec["table"]:
                spec["out"] = layer["x"]
            words, rows = slice(word, word + layer["words"]), slice(row, row + layer["rows"])
            part = (self.codes[words], self.mult[rows], self.bias[rows])
            found.append(ReferenceCore(spec, *part))
            word, row = words.stop, rows.stop
        return found

    def taps(self, frame: Sequence[int]) -> list[int]:
        """Sums of a depthwise layer's rows over one window, each of its own channel."""
        spec = self.spec
        channels = spec["geometry"]["input_shape"][2]
        sums = []
        for row, word in enumerate(self.codes):
            channel = row * channels // spec["rows"]
            total = 0
            for tap, bits in enumerate(spec["magnitudes"]):
                size, sign = word % 2**bits, (word >> bits) % 2 if bits else 0
                word >>= bits + 1 if bits else 0
                x = frame[tap * channels + channel]
                # A negative weight adds all bits inverted; the folded bias makes it good.
                total += size * (~x if sign else x)
            sums.append(total)
        return sums

    def sums(self, frame: Sequence[int]) -> list[int]:
        """Sums of the pulses of every group."""
        spec = self.spec
        groups, rows = spec["groups"], spec["rows"]
        binary, kind = spec["x"]["bits"] == 1, str(spec["code"].get("kind", "pulse"))
        sums = [0] * (rows * groups)
        for row, group, column, sign, shift in code_reference.find(kind, spec["name"])(self):
            if not group * spec["n"] <= column * groups < (group + 1) * spec["n"]:
                raise CheckError(f"Core {spec['name']!r}: column {column} is not in its group")
            x = frame[column]
            # A negative pulse adds all bits inverted, -x - 1; the folded bias makes it good.
            leaf = x if not sign else -x if binary else ~x
            sums[row * groups + group] += leaf * 2**shift
        return sums

    def _check_fits(self, value: int, bits: int) -> None:
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise CheckError(f"Core {self.spec['name']!r}: {value} overflows {bits} bits")

    def _output(self, row: int, sums: list[int]) -> int:
        spec = self.spec
        groups, total = spec["groups"], 0
        for g in range(row * groups, (row + 1) * groups):
            total += sums[g] * (1 if spec["multiplier"] == "none" else self.mult[g])
        return self._finished(total, row)

    def _finished(self, total: int, row: int) -> int:
        """The activation of a row's products."""
        spec, width = self.spec, self.spec["bias_bits"]
        total += self.bias[row] - 2**width * (self.bias[row] >> (width - 1))
        self._check_fits(total, spec["sum_bits"])
        if spec["out"]["bits"] == 1:
            return -1 if total < 0 else 1
        low, high = _bounds(spec["out"])
        return min(max(total // 2 ** spec["shift"], low), high)


def _side_by_side(
    layers: Sequence[dict[str, Any]], maps: Sequence[list[int]], number: int
) -> list[int]:
    """The map that layers give parts of, up to the one of that number, pixel by pixel."""
    own = [
        (layer["beside"], values)
        for layer, values in zip(layers, maps, strict=False)
        if layer.get("beside") and layer["beside"]["map"] == number
    ]
    found = []
    for pixel in range(own[0][0]["pixels"]):
        for beside, values in sorted(own, key=lambda x: int(x[0]["first"])):
            channels = len(values) // beside["pixels"]
            found += values[pixel * channels :][:channels]
    return found


def load_reference(specs: Sequence[dict[str, Any]], folder: Path) -> list[ReferenceCore]:
    """The cores of the specifications' JSON, with the memory files of ``folder``."""
    cores = []
    for spec in specs:
        groups, name = spec["groups"], spec["name"]
        role, words, rows = core_words.find(str(spec["kind"]), name)(spec)
        codes, bias = (read_hex(folder / f"{name}_{kind}.hex") for kind in (role, "bias"))
        mult = [1] * (rows * groups)
        wide = spec["out_width"] if spec["kind"] == "unrolled" else 1
        if spec["multiplier"] != "none":
            mult = read_hex(folder / f"{name}_mult.hex")
            mult = _parted(mult, spec["mult_bits"], wide, groups)
        bias = _parted(bias, spec["bias_bits"], wide, 1)
        if len(codes) < words or min(len(mult) // groups, len(bias)) < rows:
            raise InputError(f"Core {name!r}: its memory files are too short")
        cores.append(ReferenceCore(spec, codes[:words], mult, bias))
    return cores


def _parted(words: Sequence[int], bits: int, wide: int, groups: int) -> list[int]:
    """Values of words that hold those of ``wide`` rows, a word for each group: row by row."""
    found = []
    for first in range(0, len(words), groups):
        for row in range(wide):
            for word in words[first : first + groups]:
                found.append((word >> (row * bits)) % 2**bits)
    return found


def reference_outputs(
    graph: dict[str, Any], cores: Sequence[ReferenceCore], frames: Sequence[Sequence[int]]
) -> dict[str, list[list[int]]]:
    """Every unit's outputs of some frames, channels last, by the unit's name.

    Parameters
    ----------
    graph : dict
        The JSON of a graph of units.
    cores : sequence of ReferenceCore
        The graph's, in any order.
    frames : sequence of frames
    """
    named = {core.spec["name"]: core for core in cores}
    wires = {graph["input"]: [list(frame) for frame in frames]}
    found: dict[str, list[list[int]]] = {}
    for unit in graph["units"]:
        inputs = zip(*(wires[wire] for wire in unit["inputs"]), strict=True)
        if stream_reference.has(unit["kind"]):
            outputs = stream_reference.find(unit["kind"])(unit, list(inputs))
        else:
            outputs = [_unit(unit, named, frame) for frame in inputs]
        found[unit["name"]] = outputs
        wires |= dict.fromkeys(unit["outputs"], outputs)
    return found


Unit = dict[str, Any]
Frames = tuple[list[int], ...]

unit_reference: Face[[Frames, dict[str, ReferenceCore]], list[int]] = Face("unit", "reference")
"""What a unit (its JSON) gives for one frame of each of its inputs, by plain integers."""

stream_reference: Face[[list[Frames]], list[list[int]]] = Face("unit", "reference of frames")
"""What a unit (its JSON) whose frames depend on those before gives for all since a reset."""

core_reference: Face[[Sequence[int]], list[int]] = Face("core", "reference")
"""Sums of a core's (`ReferenceCore`) groups for a frame, by plain integers."""

core_words: Face[[], tuple[str, int, int]] = Face("core", "words")
"""What the file of a core's (its JSON's) weights is called behind its name; words and rows."""

Pulse = tuple[int, int, int, int, int]

code_reference: Face[[], Iterator[Pulse]] = Face("code", "reference")
"""Pulses of a core's (`ReferenceCore`) words, each as (row, group, column, sign bit, shift)."""

core_reference.of("pulses", "shared", "maps")(ReferenceCore.sums)
core_reference.of("int8")(ReferenceCore.products)
core_reference.of("unrolled")(ReferenceCore.constants)
core_reference.of("depthwise")(ReferenceCore.taps)


@core_words.of("pulses")
def _slot_words(spec: dict[str, Any]) -> tuple[str, int, int]:
    return "codes", spec["words"], spec["rows"]


@core_words.of("shared", "maps")
def _words_of_layers(spec: dict[str, Any]) -> tuple[str, int, int]:
    layers = spec["layers"]
    return "codes", sum(x["words"] for x in layers), sum(x["rows"] for x in layers)


@core_words.of("int8", "unrolled", "depthwise")
def _plain_words(spec: dict[str, Any]) -> tuple[str, int, int]:
    """Words of several weights, of one, or of all of a row."""
    rows, n = spec["rows"], spec["n"]
    each = {"int8": -(-n // spec.get("lanes", 1)), "unrolled": n, "depthwise": 1}
    return "weights", rows * each[spec["kind"]], rows


@code_reference.of("pulse")
def _gaps(core: ReferenceCore) -> Iterator[Pulse]:
    """Every pulse as (row, group, column, sign bit, shift), in the order of the words."""
    lanes, gap_bits = core.spec["code"]["lanes"], core.spec["code"]["gap_bits"]
    shift_bits = core.spec["code"]["shift_bits"]
    groups = core.spec["groups"]
    columns = core.spec["n"] // groups
    lane_bits = gap_bits + 1 + shift_bits
    escape = 2**gap_bits - 1
    which = 0
    address = [0] * lanes
    for word in core.codes:
        for lane in range(lanes):
            code = (word >> (lane * lane_bits)) % 2**lane_bits
            gap = code % 2**gap_bits
            address[lane] += gap
            if gap != escape:
                sign = (code >> gap_bits) % 2
                column = address[lane] * lanes + lane
                yield which // groups, which % groups, column, sign, code >> (gap_bits + 1)
        if word >> (lanes * lane_bits):
            which += 1
            address = [(which % groups) * columns // lanes] * lanes


def _unit(unit: Unit, cores: dict[str, ReferenceCore], inputs: Frames) -> list[int]:
    """What a unit gives for one frame."""
    return unit_reference.find(str(unit["kind"]), str(unit["name"]))(unit, inputs, cores)


@unit_reference.of("core")
def _core(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    core = cores[unit["core"]["name"]]
    window = unit["window"] or ({"pad": 0} | unit["core"] if "geometry" in unit["core"] else None)
    frames = inputs if window is None else _windows(window, inputs[0])
    return [value for frame in frames for value in core.compute(frame)[0]]


@unit_reference.of("lookup")
def _lookup(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    tables, x = unit["entries"], unit["x"]
    low = -(2 ** (x["bits"] - 1)) if x["signed"] else 0
    return [tables[k % len(tables)][value - low] for k, value in enumerate(inputs[0])]


@unit_reference.of("pick")
def _pick(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    start, stop = unit["start"], unit["start"] + unit["count"]
    return [x for k, x in enumerate(inputs[0]) if start <= k % unit["period"] < stop]


@unit_reference.of("largest")
def _largest(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    order = sorted(range(unit["size"]), key=lambda place: (-inputs[0][place], place))
    places = order[: unit["count"]]
    return places + [inputs[0][place] for place in places]


@stream_reference.of("smoothed")
def _averages(unit: Unit, inputs: list[Frames]) -> list[list[int]]:
    weight, found = 2 ** unit["shift"], []
    sums = [weight * x for x in inputs[0][0]] if inputs else []
    held = sums.index(max(sums)) if sums else 0
    for frame, (values,) in enumerate(inputs):
        if frame:
            sums = [a - a // weight + x for a, x in zip(sums, values, strict=True)]
        if max(sums) > sums[held] + weight * unit["margin"]:
            held = sums.index(max(sums))
        found.append([held, sums[held] // weight])
    return found


@unit_reference.of("smoothed")
def _first_average(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    return _averages(unit, [inputs])[0]


@unit_reference.of("above")
def _above(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    return [int(x >= t) for x, t in zip(inputs[0], unit["thresholds"], strict=True)]


@unit_reference.of("fork", "fifo", "unpack", "converter")
def _passed(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    return inputs[0]


def _positions(geometry: dict[str, Any]) -> Iterator[list[int | None]]:
    """The pixels of every window of a map, kernel row by row; None for those outside."""
    height, width, _ = geometry["input_shape"]
    (top, bottom), (left, right) = geometry["pads"]
    (rows, columns), (down, across) = geometry["kernel"], geometry["stride"]
    row_step, column_step = geometry["dilation"]
    tall, wide = (rows - 1) * row_step, (columns - 1) * column_step
    for y in range(-top, height + bottom - tall, down):
        for x in range(-left, width + right - wide, across):
            yield [
                v * width + u if 0 <= v < height and 0 <= u < width else None
                for v in range(y, y + tall + 1, row_step)
                for u in range(x, x + wide + 1, column_step)
            ]


def _windows(window: dict[str, Any], frame: list[int]) -> Iterator[list[int]]:
    """The frames of a convolution's core: all channels of pixel after pixel."""
    channels = window["geometry"]["input_shape"][2]
    padding = [window["pad"]] * channels
    for pixels in _positions(window["geometry"]):
        parts = (padding if p is None else frame[p * channels :][:channels] for p in pixels)
        yield [value for part in parts for value in part]


@unit_reference.of("pool")
def _pool(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    (frame,) = inputs
    channels, scale = unit["geometry"]["input_shape"][2], unit["scale"]
    result = []
    for pixels in _positions(unit["geometry"]):
        inside = [p for p in pixels if p is not None]
        for channel in range(channels):
            values = [frame[p * channels + channel] for p in inside]
            if scale is None:
                result.append(max(values, default=_bounds(unit["x"])[0]))
            else:
                count = len(pixels) if unit["include_pads"] else len(inside)
                result.append(_scaled(scale, dict(unit["mult"])[count] * sum(values)))
    return result


@unit_reference.of("join")
def _join(unit: Unit, inputs: Frames, cores: dict[str, ReferenceCore]) -> list[int]:
    scale, mult = unit["scale"], unit["mult"]
    if not unit["runs"]:
        sums = (sum(map(int.__mul__, mult, values)) for values in zip(*inputs, strict=True))
        return [_scaled(scale, total) for total in sums]
    result = []
    for turn in range(unit["size"] // sum(unit["runs"])):
        for values, run, factor in zip(inputs, unit["runs"], mult, strict=True):
            result += [_scaled(scale, factor * x) for x in values[turn * run : (turn + 1) * run]]
    return result


def _bounds(form: dict[str, Any]) -> tuple[int, int]:
    """What an activation saturates at: its own bounds, or those of its width."""
    bits, signed = form["bits"], form["signed"]
    low = -(2 ** (bits - 1)) if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    return form.get("low", low), form.get("high", high)


def _scaled(scale: dict[str, Any], total: int) -> int:
    """Rounded half up, saturated."""
    low, high = _bounds(scale["out"])
    rounded = (total + 2 ** (scale["shift"] - 1)) // 2 ** scale["shift"]
    return min(max(rounded, low), high)
