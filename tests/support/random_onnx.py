"""Random small convolutional networks, as ONNX models, for Hypothesis."""

from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper
from onnx_graphs import as_single, graph_model


class _Builder:
    """Grows a graph whose newest value is a map (N, c, h, w), or (N, c, w) when ``line``."""

    def __init__(self, draw: Any, line: bool) -> None:
        self.draw, self.line = draw, line
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.c = draw(st.integers(1, 4))
        self.h = 1 if line else draw(st.integers(2, 9))
        self.w = draw(st.integers(2, 9))
        self.last, self.positive = "x", False

    def sides(self, h: int, w: int) -> list[int]:
        return [w] if self.line else [h, w]

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(values)
        return name

    def numbers(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.2, 1.5, shape) * self.rng.choice([-1, 1], shape))

    def per_channel(self) -> tuple[int, ...]:
        return (self.c, *self.sides(1, 1))

    def conv(self) -> None:
        draw = self.draw
        kh, kw = (min(n, draw(st.integers(1, 3))) for n in (self.h, self.w))
        groups = draw(st.sampled_from([g for g in range(1, self.c + 1) if self.c % g == 0]))
        outputs = groups * draw(st.integers(1, 3))
        (sh, sw), (up, down, left, right) = (
            draw(st.tuples(*[st.integers(1, 2)] * 2)), draw(st.tuples(*[st.integers(0, 2)] * 4))
        )  # fmt: skip
        dh, dw = (
            draw(st.integers(1, 2)) if 2 * (k - 1) + 1 <= n else 1
            for k, n in ((kh, self.h), (kw, self.w))
        )
        inputs = [self.last, self.numbers(outputs, self.c // groups, *self.sides(kh, kw))]
        if draw(st.booleans()):
            inputs.append(self.numbers(outputs))
        pads = [left, right] if self.line else [up, left, down, right]
        self.last = self.add("Conv", inputs, group=groups, pads=pads, strides=self.sides(sh, sw),
                             dilations=self.sides(dh, dw))  # fmt: skip
        self.c, self.positive = outputs, False
        self.h = 1 if self.line else (self.h + up + down - dh * (kh - 1) - 1) // sh + 1
        self.w = (self.w + left + right - dw * (kw - 1) - 1) // sw + 1

    def pool(self) -> None:
        draw = self.draw
        kind = draw(st.sampled_from(["MaxPool", "AveragePool"]))
        kh, kw = (min(n, draw(st.integers(1, 3))) for n in (self.h, self.w))
        sh, sw = draw(st.tuples(*[st.integers(1, 3)] * 2))
        (up, down), (left, right) = (
            [draw(st.integers(0, k // 2)) for _ in range(2)] for k in (kh, kw)
        )
        more = {"count_include_pad": int(draw(st.booleans()))} if kind == "AveragePool" else {}
        pads = [left, right] if self.line else [up, left, down, right]
        self.last = self.add(kind, [self.last], kernel_shape=self.sides(kh, kw), pads=pads,
                             strides=self.sides(sh, sw), **more)  # fmt: skip
        self.h = 1 if self.line else (self.h + up + down - kh) // sh + 1
        self.w = (self.w + left + right - kw) // sw + 1

    def relu(self) -> None:
        self.last, self.positive = self.add("Relu", [self.last]), True

    def clip(self) -> None:
        bounds = [self.constant(np.array(v)) for v in (0.0, 6.0)]
        self.last, self.positive = self.add("Clip", [self.last, *bounds]), True

    def function(self) -> None:
        """An operator of one value; what it may be is in `activation_cases`."""
        kind, attributes = self.draw(st.sampled_from(FUNCTIONS))
        inputs = [self.last]
        if kind == "PRelu":
            inputs.append(self.numbers(*self.draw(st.sampled_from([(1,), self.per_channel()]))))
        if kind == "Clip":
            inputs += [self.constant(np.array(v)) for v in (-1.0, 0.5)]
        self.last, self.positive = self.add(kind, inputs, **attributes), False

    def pattern(self) -> None:
        """Several operators that are a function of one value."""
        start = self.last
        kind = self.draw(st.sampled_from(["Sigmoid", "Tanh", "Softplus", "Abs"]))
        bent = self.add(kind, [start])
        if kind == "Abs":
            bent = self.add("Add", [bent, self.constant(np.array(1.0))])
        last = self.draw(st.sampled_from(["Sub", "Add", "Div" if kind == "Abs" else "Mul"]))
        self.last, self.positive = self.add(last, [start, bent]), False

    def norm(self) -> None:
        k = [self.numbers(self.c) for _ in range(3)]
        variance = self.constant(self.rng.uniform(0.5, 2, self.c))
        self.last = self.add("BatchNormalization", [self.last, *k, variance])
        self.positive = False

    def arithmetic(self) -> None:
        kind = self.draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
        operands = [self.last, self.numbers(*self.draw(st.sampled_from([(), self.per_channel()])))]
        if kind != "Div" and self.draw(st.booleans()):
            operands.reverse()
        self.last, self.positive = self.add(kind, operands), False

    def branch(self) -> None:
        kind = self.draw(st.sampled_from(["Add", "Concat"]))
        other = self.last
        for side in self.draw(st.sampled_from([(1,), (3,), (3, 1)])):
            weight = self.numbers(self.c, self.c, *self.sides(side, side))
            pads = [side // 2] * (2 if self.line else 4)
            other = self.add("Conv", [other, weight], pads=pads)
        more = {"axis": 1} if kind == "Concat" else {}
        self.last = self.add(kind, [self.last, other], **more)
        self.c, self.positive = self.c * (2 if kind == "Concat" else 1), False

    def transposed_relu(self) -> None:
        forth, back = ([0, 2, 1],) * 2 if self.line else ([0, 2, 3, 1], [0, 3, 1, 2])
        there = self.add("Transpose", [self.last], perm=forth)
        relu = self.add("Relu", [there])
        self.last, self.positive = self.add("Transpose", [relu], perm=back), True

    def padded_conv(self) -> None:
        up, left, down, right = self.draw(st.tuples(*[st.integers(0, 2)] * 4))
        pads = [0, 0, left, 0, 0, right]
        if not self.line:
            pads = [0, 0, up, left, 0, 0, down, right]
        self.last = self.add("Pad", [self.last, self.constant(np.array(pads))])
        self.h, self.w = (1 if self.line else self.h + up + down), self.w + left + right
        self.conv()

    def end(self) -> None:
        if self.draw(st.booleans()):
            # The format's reference implementation takes GlobalMaxPool's axes wrong on lines.
            kinds = ["GlobalAveragePool", *(() if self.line else ("GlobalMaxPool",))]
            kind = self.draw(st.sampled_from(kinds))
            self.last = self.add(kind, [self.last])
            self.h = self.w = 1
        size, outputs = self.c * self.h * self.w, self.draw(st.integers(1, 5))
        if self.draw(st.booleans()):
            flat = self.add("Flatten", [self.last])
            inputs = [flat, self.numbers(outputs, size), self.numbers(outputs)]
            self.last = self.add("Gemm", inputs, transB=1, alpha=0.5)
        else:
            flat = self.add("Reshape", [self.last, self.constant(np.array([-1, size]))])
            product = self.add("MatMul", [flat, self.numbers(size, outputs)])
            self.last = self.add("Add", [self.numbers(outputs), product])


FUNCTIONS: list[tuple[str, dict[str, float]]] = [
    ("Tanh", {}), ("Softplus", {}), ("Softsign", {}), ("Erf", {}), ("LeakyRelu", {"alpha": 0.25}),
    ("Elu", {"alpha": 0.5}), ("PRelu", {}), ("Clip", {}),
]  # fmt: skip
STEPS = ["conv", "pool", "relu", "clip", "function", "pattern", "norm", "arithmetic", "branch",
         "transposed_relu", "padded_conv"]  # fmt: skip
WIDE_STEPS = ["second", "part", "halves", "rounded"]


class _Wide(_Builder):
    """A graph that may also have several inputs and outputs, slices, and roundings of a quantized
    file."""

    def __init__(self, draw: Any, line: bool) -> None:
        super().__init__(draw, line)
        self.inputs = [("x", (self.c, *self.sides(self.h, self.w)))]
        self.outputs: list[str] = []

    def second(self) -> None:
        """Another input beside what there is."""
        name = f"input{len(self.inputs)}"
        self.inputs.append((name, (self.c, *self.sides(self.h, self.w))))
        kind = self.draw(st.sampled_from(["Add", "Sub", "Concat"]))
        more = {"axis": 1} if kind == "Concat" else {}
        self.last = self.add(kind, [self.last, name], **more)
        self.c, self.positive = self.c * (2 if kind == "Concat" else 1), False

    def part(self) -> None:
        """A slice of one axis."""
        axes = {"c": 1, "w": 2} if self.line else {"c": 1, "h": 2, "w": 3}
        name = self.draw(st.sampled_from([*axes]))
        size = getattr(self, name)
        start = self.draw(st.integers(0, size - 1))
        stop = self.draw(st.integers(start + 1, size))
        bounds = [self.constant(np.array([n])) for n in (start, stop, axes[name])]
        self.last = self.add("Slice", [self.last, *bounds])
        setattr(self, name, stop - start)

    def halves(self) -> None:
        """Both halves of the channels, one less the other."""
        if self.c % 2:
            return
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node("Split", [self.last], [name, f"{name}b"], axis=1))
        self.last, self.c = self.add("Sub", [name, f"{name}b"]), self.c // 2
        self.positive = False

    def rounded(self) -> None:
        """QuantizeLinear and DequantizeLinear."""
        scale = self.constant(np.array(self.draw(st.sampled_from([0.0371, 0.217]))))
        zero = self.constant(np.array(self.draw(st.sampled_from([-128, 0, 11])), dtype=np.int8))
        steps = self.add("QuantizeLinear", [self.last, scale, zero])
        self.last = self.add("DequantizeLinear", [steps, scale, zero])

    def end(self) -> None:
        flat, vector = self.add("Flatten", [self.last]), self.draw(st.integers(0, 3))
        size = self.c * self.h * self.w
        if vector:
            self.inputs.append(("vector", (vector,)))
            flat, size = self.add("Concat", [flat, "vector"], axis=1), size + vector
        for _ in range(self.draw(st.integers(1, 2))):
            rows = self.draw(st.integers(1, 4))
            inputs = [flat, self.numbers(rows, size), self.numbers(rows)]
            head = self.add("Gemm", inputs, transB=1)
            if self.draw(st.booleans()):
                head = self.add("Relu", [head])
            self.outputs.append(head)


@st.composite
def random_graphs(draw: Any) -> onnx.ModelProto:
    """A model of up to 6 steps, with one input and output or several; in single precision."""
    build = _Wide(draw, draw(st.booleans()))
    for step in draw(st.lists(st.sampled_from([*STEPS, *WIDE_STEPS]), max_size=6)):
        getattr(build, step)()
    build.end()
    model = graph_model(build.nodes, build.constants, ("N", 1), output=build.outputs[0])
    del model.graph.input[:], model.graph.output[:]
    for name, shape in build.inputs:
        model.graph.input.append(helper.make_tensor_value_info(name, 11, ("N", *shape)))
    for name in build.outputs:
        model.graph.output.append(helper.make_tensor_value_info(name, 11, None))
    return as_single(model)


@st.composite
def random_models(draw: Any) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A model of up to 8 steps and a final layer, and the shape of a frame."""
    build = _Builder(draw, draw(st.booleans()))
    shape = (build.c, build.w) if build.line else (build.c, build.h, build.w)
    for step in draw(st.lists(st.sampled_from(STEPS), max_size=8)):
        getattr(build, step)()
    build.end()
    return graph_model(build.nodes, build.constants, ("N", *shape), output=build.last), shape
