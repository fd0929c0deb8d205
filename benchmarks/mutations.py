"""What may be wrong in a source file: each operator, constant, condition, statement and reset."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Mutation", "mutations_of"]

_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.MatMult: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_CHOICES = ("If", "Elif")  # of Amaranth's modules
# Keywords that change nothing of what is computed: names, and resets of what needs none.
_SPARED = ("name", "attrs", "src_loc_at", "reset_less", "strict")
_TYPES = ("cast", "TypeVar", "Face", "ValueFace", "In", "Out")


@dataclass(frozen=True)
class Mutation:
    """One change.

    Parameters
    ----------
    path : str
        The file, from the repository's root on.
    where : str
        The function or class, by its qualified name.
    line : int
    before, after : str
        What stands there, and instead.
    start, end : int
        Its place, in bytes.
    turn : int
        How many of the same name come before it.
    """

    path: str
    where: str
    line: int
    before: str
    after: str
    start: int
    end: int
    turn: int = 0

    @property
    def name(self) -> str:
        """Tells it from all others, and stays as lines come and go."""
        again = f" #{self.turn + 1}" if self.turn else ""
        return f"{self.path}: {self.where}: {_line(self.before)} -> {_line(self.after)}{again}"

    def of(self, source: bytes) -> bytes:
        """The file with it."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutations_of(root: Path, path: str) -> list[Mutation]:
    """All that may be wrong in a file, in its order."""
    return list(_mutations(path, (root / path).read_bytes()))


@cache
def _mutations(path: str, source: bytes) -> tuple[Mutation, ...]:
    found, turns = [], Counter[tuple[str, str, str]]()
    for m in _File(path, source).visit_all():
        key = (m.where, _line(m.before), _line(m.after))
        found.append(Mutation(**{**vars(m), "turn": turns[key]}))
        turns[key] += 1
    return tuple(found)


def _line(text: str) -> str:
    return " ".join(text.split())


class _File:
    """Walks a file's tree."""

    def __init__(self, path: str, source: bytes) -> None:
        self._path, self._source = path, source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def visit_all(self) -> Iterator[Mutation]:
        """Every change."""
        return self._walk(ast.parse(self._source), ())

    def _walk(self, node: ast.AST, where: tuple[str, ...]) -> Iterator[Mutation]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            where = (*where, node.name)
        for place, after in self._changes(node):
            start, end = self._place(place)
            before = self._source[start:end].decode()
            yield Mutation(
                self._path, ".".join(where) or "module", place.lineno, before, after, start, end
            )
        for child in self._inside(node):
            yield from self._walk(child, where)

    def _place(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _inside(self, node: ast.AST) -> Iterator[ast.AST]:
        """What is looked at further: no annotations, texts, errors and names."""
        match node:
            case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
                return
            case ast.FunctionDef():
                yield from (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body)
            case ast.ClassDef():
                yield from node.body
            case ast.AnnAssign():
                yield from filter(None, [node.value])
            case ast.keyword(arg=name) if name in _SPARED:
                return
            case ast.Call(func=ast.Name(id=name)) if name in _TYPES and not _computed(node):
                return
            case ast.Subscript(value=ast.Name(id=name)) if name[:1].isupper() and name != "Array":
                return  # a generic type
            case ast.MatchValue() | ast.MatchSingleton():
                return
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                return
            case _:
                yield from ast.iter_child_nodes(node)

    def _changes(self, node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
        """Places and what may stand there instead."""
        match node:
            case ast.BinOp() if isinstance(node.left, ast.Constant | ast.JoinedStr) and isinstance(
                getattr(node.left, "value", ""), str
            ):
                return
            case ast.BinOp(op=op) if type(op) in _OPERATORS:
                yield node, _text(ast.BinOp(node.left, _OPERATORS[type(op)](), node.right))
            case ast.BoolOp(op=op):
                yield node, _text(ast.BoolOp(_OPERATORS[type(op)](), node.values))
            case ast.Compare(ops=[op]):
                other = [_OPERATORS[type(op)]()]
                yield node, _text(ast.Compare(node.left, other, node.comparators))
            case ast.UnaryOp():
                yield node, _text(node.operand)
            case ast.Constant(value=bool() as value):
                yield node, str(not value)
            case ast.Constant(value=int() as value):
                yield node, "0" if value == 1 else str(value + 1)
            case ast.If() | ast.IfExp() | ast.While():
                yield from ((node.test, word) for word in self._answers(node))
            case ast.Call():
                yield from self._calls(node)
            case ast.FunctionDef():
                yield from _lost_resets(node)
            case ast.AugAssign():
                yield from self._assigned(node)
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name("super"))))
            ):
                return
            case ast.Expr(value=ast.Call()):
                yield node, "pass"

    @staticmethod
    def _answers(node: ast.If | ast.IfExp | ast.While) -> Iterator[str]:
        if not isinstance(node, ast.While):  # which would never end
            yield "True"
        yield "False"

    def _calls(self, node: ast.Call) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
        match node.func:
            case ast.Name(id="Mux") if len(node.args) == 3:
                select, a, b = node.args
                yield node, _text(ast.Call(node.func, [select, b, a], []))
            case ast.Attribute(attr=name) if name in _CHOICES and len(node.args) == 1:
                yield node.args[0], "1"
                yield node.args[0], "0"

    def _assigned(self, node: ast.AugAssign) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
        """``m.d.sync += [...]`` without one of its statements; other sums turned round."""
        if not _is_domain(node.target):
            if type(node.op) in _OPERATORS:
                other = ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
                yield node, ast.unparse(other)
        elif isinstance(node.value, ast.List) and len(node.value.elts) > 1:
            for part in node.value.elts:
                yield part, "*[]" if not isinstance(part, ast.Starred) else "*()"
        else:
            yield node, "pass"


def _computed(node: ast.Call) -> bool:
    """Whether an argument is more than a name or a number."""
    return not all(isinstance(part, ast.Name | ast.Constant) for part in node.args)


def _is_super(called: ast.expr) -> bool:
    """Whether it is a method of ``super()``."""
    match called:
        case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
            return True
    return False


def _lost_resets(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, str]]:
    """The registers of a function that have a reset, without it."""
    nodes = list(ast.walk(function))
    clocked = {
        call.func.value.id
        for node in nodes
        if isinstance(node, ast.AugAssign) and _is_domain(node.target) and _domain(node) != "comb"
        for call in ast.walk(node.value)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        and call.func.attr == "eq" and isinstance(call.func.value, ast.Name)
    }  # fmt: skip
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                pairs = zip(names, values, strict=False)
            case ast.Assign(targets=[name], value=value):
                pairs = zip([name], [value], strict=True)
            case _:
                continue
        for name, value in pairs:
            match name, value:
                case ast.Name(id=known), ast.Call(func=ast.Name(id="Signal"), keywords=words) if (
                    known in clocked and all(word.arg != "reset_less" for word in words)
                ):
                    less = ast.keyword("reset_less", ast.Constant(value=True))
                    yield value, _text(ast.Call(value.func, value.args, [*words, less]))


def _domain(node: ast.AugAssign) -> str:
    return node.target.attr if isinstance(node.target, ast.Attribute) else ""


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _is_domain(target: ast.expr) -> bool:
    """``m.d.sync``, ``m.d.comb`` or ``m.d[...]``."""
    match target:
        case ast.Attribute(value=ast.Attribute(attr="d")):
            return True
        case ast.Subscript(value=ast.Attribute(attr="d")):
            return True
    return False
