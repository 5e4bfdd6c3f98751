"""Whether XNNPACK's sparse kernels take a graph, and if not, the first layer and rule that says no.

XNNPACK turns part of a graph from NHWC to NCHW, where a 1x1 convolution skips zeros. That part begins at a 3x3
convolution of stride 2 on an image, goes on through operators that it has for NCHW, and ends in a MEAN over height
and width; more than two thirds of its 1x1 weights must be zero. PAD is first fused into the convolution behind it.

Source: "Sparse Inference" in the README of LiteRT's XNNPACK delegate and `xnn_subgraph_rewrite_for_nchw` of XNNPACK;
each rule was seen on LiteRT 2.3 for aarch64 (files of 90 % zeros run four to eight times as fast as their dense twins
where the verdict is yes). Two things that the README does not say: 1x1 convolutions, dense layers that keep their
dimensions, and elementwise operators after the last MEAN make LiteRT 2.3 refuse the file, and a graph in which only
the front part meets the rules computes wrong values there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from liteship.tflite_graph import Graph, Node, Value
from liteship_agent.manifest import SparseVerdict

HOLDS_FOR = "ai-edge-litert 2.3 on aarch64"
_ELSEWHERE = "x86 and tflite-runtime 2.14 run the file dense"
_SAME = 0  # Padding.SAME of the schema
_CLAMPS = (0, 1, 2, 3)  # none, RELU, RELU_N1_TO_1, RELU6 of the schema's ActivationFunctionType
_UNARY = (
    *("ABS", "CEIL", "ELU", "FLOOR", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "NEG"),
    *("RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "SQUARE", "TANH"),
)
_FLOATS = ("float32", "float16")  # float16 weights are expanded when the file is loaded
_INDICES = ("int32", "int64", "bool")

Sides = tuple[int, int, int, int]


class _Role(Enum):
    """What a node can be in the sparse part."""

    BEGIN = 1
    INSIDE = 2
    END = 3
    INSIDE_OR_END = 4


@dataclass
class _Step:
    """A node as XNNPACK sees it: without DENSIFY and DEQUANTIZE of weights, with PAD fused.

    Args:
        layer: Name of its kernel, or of its output where it has none.
        inputs: Indices of its values that are not constant.
        role: Null where it cannot stand in the sparse part.
        refusal: Why not.
    """

    node: Node
    layer: str
    inputs: tuple[int, ...]
    role: _Role | None
    refusal: str
    parent: _Step | None = field(default=None, repr=False)

    def root(self) -> _Step:
        """The node that stands for all nodes joined with this one."""
        step = self
        while step.parent is not None:
            step.parent = step.parent.parent or step.parent
            step = step.parent
        return step

    @property
    def is_inside(self) -> bool:
        """Whether it takes NCHW."""
        return self.role not in (None, _Role.BEGIN)

    @property
    def is_end(self) -> bool:
        """Whether it can give NHWC."""
        return self.role in (_Role.END, _Role.INSIDE_OR_END)


def judge(graph: Graph) -> SparseVerdict:
    """Apply the rules to the main graph of a file.

    Raises:
        ValueError: a kernel does not fit its shape.
    """
    if not any(value.is_sparse for value in graph.values):
        return _no(None, "kernels are stored dense")
    steps = list(_steps(graph))
    for step in steps:
        if dtype := _integer_dtype(graph, step.node):
            return _no(step.layer, f"only float kernels are taken; this layer has {dtype}")
    return _Parts(graph, steps).verdict()


def _no(layer: str | None, rule: str) -> SparseVerdict:
    return SparseVerdict(False, layer, rule, HOLDS_FOR)


def _integer_dtype(graph: Graph, node: Node) -> str | None:
    values = [graph.kernel(node), *(graph.values[index] for index in (*node.inputs, *node.outputs) if index >= 0)]
    return next((v.dtype for v in values if v is not None and v.dtype not in (*_FLOATS, *_INDICES)), None)


def _steps(graph: Graph) -> Iterator[_Step]:
    """The nodes with their roles, in the order of the graph."""
    readers = defaultdict(list)
    for node in graph.nodes:
        for index in set(node.inputs):
            readers[index].append(node)
    pads: dict[int, tuple[int, Sides]] = {}
    for node in graph.nodes:
        if node.operator in ("DENSIFY", "DEQUANTIZE") and graph.stored(node.outputs[0]):
            continue
        reader = readers[node.outputs[0]][0] if node.outputs and len(readers[node.outputs[0]]) == 1 else None
        sides = _pad_sides(graph, node) if reader and node.outputs[0] not in graph.outputs else None
        if sides and reader and _padding(graph, reader) is not None:
            pads[node.outputs[0]] = (node.inputs[0], sides)
            continue
        padding: Sides = (0, 0, 0, 0)
        inputs = tuple(index for index in node.inputs if index >= 0 and graph.stored(index) is None)
        if inputs and inputs[0] in pads:
            source, padding = pads[inputs[0]]
            inputs = (source, *inputs[1:])
        role, refusal = _role(graph, node, padding)
        kernel = graph.kernel(node)
        named = kernel or (graph.values[node.outputs[0]] if node.outputs else None)
        yield _Step(node, named.name if named else node.operator, inputs, role, refusal)


def _pad_sides(graph: Graph, node: Node) -> Sides | None:
    """Top, right, bottom and left of a PAD of height and width with zeros."""
    paddings = graph.operand(node, 1)
    amounts = paddings.integers() if paddings is not None and node.operator == "PAD" else ()
    if len(amounts) != 8 or any(amounts[:2]) or any(amounts[6:]):
        return None
    top, bottom, left, right = amounts[2:6]
    return top, right, bottom, left


def _padding(graph: Graph, node: Node) -> Sides | None:
    """The padding of a convolution on each side; null where it depends on the size of the image, or for anything else.

    SAME with stride 1 is resolved when the operator is made, with another stride when it runs.
    """
    kernel = graph.kernel(node)
    if node.operator not in ("CONV_2D", "DEPTHWISE_CONV_2D") or kernel is None or len(kernel.shape) != 4:
        return None
    if node.options.get("Padding") != _SAME:
        return 0, 0, 0, 0
    if _strides(node) != (1, 1):
        return None
    height, width = kernel.shape[1] - 1, kernel.shape[2] - 1
    return height // 2, width - width // 2, height - height // 2, width // 2


def _strides(node: Node) -> tuple[int, int]:
    return node.options.get("StrideH", 0), node.options.get("StrideW", 0)


def _role(graph: Graph, node: Node, padding: Sides) -> tuple[_Role | None, str]:
    """What the node can be, or why it can be nothing."""
    data = graph.operand(node, 0)
    if node.operator in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return _convolution_role(graph, node, padding)
    if node.operator == "FULLY_CONNECTED":
        if node.options.get("KeepNumDims") and graph.kernel(node):
            return _Role.INSIDE, ""
        return None, "a dense layer can only follow the sparse part"
    if data is not None and len(data.shape) == 4:
        if node.operator in ("MEAN", "SUM"):
            axes = graph.operand(node, 1)
            spatial = axes is not None and sorted(axis % 4 for axis in axes.integers()) == [1, 2]
            return (_Role.INSIDE_OR_END, "") if spatial else (None, f"{node.operator} must be over height and width")
        if node.operator in ("ADD", "MUL") and _is_binary(graph, node):
            return _Role.INSIDE, ""
        if node.operator in _UNARY or (node.operator == "RESIZE_BILINEAR" and min(data.shape[1:3]) > 1):
            return _Role.INSIDE, ""
        if node.operator == "DEPTH_TO_SPACE":
            return _Role.END, ""
    return None, f"{node.operator} is not among the operators of the sparse part"


def _is_binary(graph: Graph, node: Node) -> bool:
    """Both operands have four dimensions, and a constant one is a scalar or a vector."""
    values = [graph.operand(node, position) for position in (0, 1)]
    return all(
        value is not None
        and len(value.shape) == 4
        and (value.buffer is None or sum(size != 1 for size in value.shape) <= 1)
        for value in values
    )


def _convolution_role(graph: Graph, node: Node, padding: Sides) -> tuple[_Role | None, str]:
    kernel, data, own = graph.kernel(node), graph.operand(node, 0), _padding(graph, node)
    if kernel is None or len(kernel.shape) != 4 or data is None or len(data.shape) != 4:
        return None, "a constant kernel and an input of four dimensions are required"
    strides = _strides(node)
    sides = None if own is None else tuple(a + b for a, b in zip(own, padding, strict=True))
    height, width, channels = kernel.shape[1:]
    seen = f"{height}x{width}, stride {strides[0]}x{strides[1]}, padding {_shown(sides)}, {data.shape[3]} channels"
    if node.options.get("FusedActivationFunction") not in _CLAMPS:
        return None, "only clamping activations can be fused"
    if (node.options.get("DilationHFactor"), node.options.get("DilationWFactor")) != (1, 1):
        return None, "no dilation is taken"
    if node.operator == "DEPTHWISE_CONV_2D":
        wanted = height // 2
        if (height, width) in ((3, 3), (5, 5)) and strides in ((1, 1), (2, 2)) and sides == (wanted,) * 4:
            if channels == data.shape[3]:
                return _Role.INSIDE, ""
            return None, "a depthwise convolution must have one output channel for each input channel"
        return None, f"a depthwise convolution must be 3x3 padded by 1, or 5x5 padded by 2, on every side; it is {seen}"
    if channels != data.shape[3]:
        return None, "no grouped convolution is taken"
    if (height, width) == (1, 1):
        if strides == (1, 1) and sides == (0, 0, 0, 0):
            return _Role.INSIDE, ""
        return None, f"a 1x1 convolution must have stride 1 and no padding; it is {seen}"
    if (height, width) == (3, 3) and strides == (2, 2) and sides == (1, 1, 1, 1) and channels == 3:
        return _Role.BEGIN, ""
    return None, f"a convolution must be 1x1, or 3x3 of stride 2 padded by 1 on every side of 3 channels; it is {seen}"


def _shown(sides: tuple[int, ...] | None) -> str:
    if sides is None:
        return "SAME"
    return str(sides[0]) if len(set(sides)) == 1 else "top {} right {} bottom {} left {}".format(*sides)


class _Parts:
    """The connected parts of nodes that could run on NCHW."""

    def __init__(self, graph: Graph, steps: list[_Step]) -> None:
        self.graph, self.steps = graph, steps
        self.makers = {output: step for step in steps for output in step.node.outputs}
        self.read_inside = {index for step in steps if step.is_inside for index in step.inputs}
        self.read_outside = {index for step in steps if not step.is_inside for index in step.inputs} | set(
            graph.outputs
        )
        for step in steps:
            for maker in self._givers(step):
                one, other = step.root(), maker.root()
                if one is not other:
                    one.parent = other

    def verdict(self) -> SparseVerdict:
        """Of the parts that begin at an image; what does not begin there never runs sparse."""
        parts = {id(step.root()): step.root() for step in self.steps if step.role is _Role.BEGIN}
        members = [step for step in self.steps if id(step.root()) in parts]
        broken = next(((step, rule) for step in members if (rule := self._broken_rule(step))), None)
        if parts and broken is None:
            verdicts = [self._profit(part) for part in parts.values()]
            return next((verdict for verdict in verdicts if verdict.eligible), verdicts[0])
        refused = self._first_refused()
        if refused is not None:
            return _no(refused.layer, refused.refusal)
        if broken is not None:
            return _no(broken[0].layer, broken[1])
        return _no(None, "no 3x3 convolution of an image begins the graph")

    def _first_refused(self) -> _Step | None:
        """Between the first beginning and the last end, or where there is none, in the whole graph."""
        begins = [index for index, step in enumerate(self.steps) if step.role is _Role.BEGIN]
        ends = [index for index, step in enumerate(self.steps) if step.is_end]
        span = self.steps[begins[0] if begins else 0 : ends[-1] if ends else None]
        return next((step for step in span if step.role is None), None)

    def _givers(self, step: _Step) -> list[_Step]:
        """Nodes that hand this one NCHW, if it takes that."""
        makers = [self.makers[index] for index in step.inputs if index in self.makers] if step.is_inside else []
        return [maker for maker in makers if maker.role not in (None, _Role.END)]

    def _broken_rule(self, step: _Step) -> str:
        """The rule about its neighbors that a node breaks, or an empty text."""
        if step.is_inside and len(self._givers(step)) < len(step.inputs):
            return "its input does not come from the sparse part"
        outputs = set(step.node.outputs)
        stays = bool(outputs & self.read_inside) and not outputs & self.read_outside
        if stays or (step.is_end and not outputs & self.read_inside):
            return ""
        if self.graph.values[step.node.outputs[0]].shape[1:3] == (1, 1):
            return "the sparse part must end in MEAN: reshape before this layer, else LiteRT refuses the file"
        return "the sparse part must end in MEAN: this layer's output is read outside of it"

    def _profit(self, part: _Step) -> SparseVerdict:
        kernels = [kernel for step in self.steps if step.root() is part and (kernel := self._pointwise(step))]
        weights, zeros = sum(kernel.elements for kernel in kernels), sum(kernel.zeros for kernel in kernels)
        share = f"{100 * zeros / weights if weights else 0:.1f} % of the 1x1 weights are zero"
        if 3 * zeros <= 2 * weights:
            return _no(None, f"{share}; more than two thirds must be")
        return SparseVerdict(True, None, f"{share}; {_ELSEWHERE}", HOLDS_FOR)

    def _pointwise(self, step: _Step) -> Value | None:
        kernel = self.graph.kernel(step.node)
        if kernel is None or step.role is not _Role.INSIDE or step.node.operator == "DEPTHWISE_CONV_2D":
            return None
        return kernel
