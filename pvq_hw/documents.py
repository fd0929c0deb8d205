"""Documents: values as JSON, and back from JSON and TOML files that nobody vouches for.

What a document holds is said once, by the annotations of dataclasses and TypedDicts. `read` takes
JSON values apart by them, `write` is its inverse. Nothing is converted in silence: ``"3"`` and
``3.0`` are no integers, numbers are finite and integers have 64 bits, a key that isn't known is
refused by its name. Every error is one line of one form: the document, the place in it, what must
be there, and what is: ``plan.json: layers[0].core.rows must be an integer, not '3'``.
"""

import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from pvq_hw.errors import InputError
from pvq_hw.naming import near, quoted

__all__ = [
    "HEX",
    "OPEN",
    "Checked",
    "Document",
    "Format",
    "Place",
    "document_text",
    "integer_range",
    "line",
    "load_json",
    "load_toml",
    "no_pipe",
    "number_range",
    "one_of",
    "read",
    "read_fields",
    "read_json",
    "read_kind",
    "text_like",
    "unknown_key",
    "write",
    "write_fields",
]

T = TypeVar("T")

_INTEGERS = 1 << 63
_TOML_BYTES = 1 << 20
_MOST_DOTS = 5_000  # the parser takes quadratic time for one key of many parts
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Place:
    """Where in a document a value is, for messages."""

    document: str
    path: str = ""

    def key(self, name: str) -> "Place":
        """The place of a table's entry."""
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,47}", name):
            return Place(self.document, f"{self.path}[{quoted(name)}]")
        return Place(self.document, f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> "Place":
        """The place of an entry of a list."""
        return Place(self.document, f"{self.path}[{index}]")

    def __str__(self) -> str:
        return ": ".join(part for part in (self.document, self.path) if part)

    def wrong(self, rule: str, value: Any) -> InputError:
        """The error of a value that is not what it must be."""
        return InputError(f"{self} must be {rule}, not {_shown(value)}")

    def refused(self, error: Exception) -> InputError:
        """The error of a value that its own class refuses."""
        return InputError(f"{self}: {error}")


@dataclass(frozen=True)
class Checked:
    """Marks a type, as in ``Annotated[int, Checked(...)]``, that is more than its JSON type.

    Parameters
    ----------
    rule : str
        What a value must be, for messages.
    read : callable, optional
        Of a value of the JSON type; raises ValueError where it isn't what it must be. InputError
        counts as the value's own refusal and is told as it is.
    write : callable, optional
        Its inverse.
    wire : type, optional
        The type in the document, where it is another one; of an array with ``str`` that of each
        number.
    """

    rule: str
    read: Callable[[Any], Any] = lambda value: value
    write: Callable[[Any], Any] | None = None
    wire: Any = None


def _within(low: float, high: float) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not low <= value <= high:
            raise ValueError
        return value

    return check


def one_of(*texts: str) -> Checked:
    """Marks a field that holds one of these texts."""

    def check(value: str) -> str:
        if value not in texts:
            raise ValueError
        return value

    return Checked(" or ".join(texts), check)


def number_range(low: float, high: float) -> Checked:
    """Marks a field that holds a number from ``low`` to ``high``."""
    return Checked(f"a number from {low:,} to {high:,}", _within(low, high))


def integer_range(low: int, high: int) -> Checked:
    """An integer from ``low`` to ``high``."""
    return Checked(f"an integer from {low:,} to {high:,}", _within(low, high))


def text_like(pattern: str) -> Checked:
    """Text that a regular expression matches as a whole."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Checked(f"text like {pattern}", check)


def line(most: int) -> Checked:
    """One printable line of at most so many characters."""

    def check(value: str) -> str:
        if not value.isprintable() or len(value) > most:
            raise ValueError
        return value

    return Checked(f"a line of at most {most:,} characters", check)


def _from_hex(text: str) -> float:
    value = float.fromhex(text)
    if not math.isfinite(value):
        raise ValueError
    return value


HEX = Checked(
    "a finite number in hexadecimal", _from_hex, lambda value: float(value).hex(), wire=str
)
"""A number that comes back to the last bit."""


OPEN = "open"
"""Marks a TypedDict that may hold more than it names: figures that can be made again."""


class Document:
    """A dataclass that is a part of documents.

    A class with a ``kind`` writes it. Where a field's type is such a class, ``kind`` tells which
    of it and its subclasses is meant. ``derived`` are keys that a class's own `to_json` adds and
    that say again what follows from the fields: they are passed over when it is read. ``keys``
    are fields that a document calls something else. ``usual`` is the kind that is not written, and
    that is meant where none is.
    """

    usual: ClassVar[str] = ""
    derived: ClassVar[tuple[str, ...]] = ()
    keys: ClassVar[Mapping[str, str]] = {}

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return write_fields(self)

    @classmethod
    def from_json(cls, value: Any, place: Place | str = "") -> Self:
        """Inverse of `to_json`; raises InputError on anything else."""
        return read(cls, value, place or cls.__name__)


# -- files ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """What a JSON file says that it is.

    Parameters
    ----------
    what : str
        What messages call it, with its article.
    name : str
        Under ``format``; empty for a file without.
    version : int
        Under ``format_version``; 0 for a file without.
    limit : int
        Most bytes.
    """

    what: str
    name: str = ""
    version: int = 0
    limit: int = 1 << 26

    @property
    def header(self) -> dict[str, Any]:
        """The keys that say it."""
        found: dict[str, Any] = {"format": self.name} if self.name else {}
        return found | ({"format_version": self.version} if self.version else {})

    def check(self, value: Any, place: Place) -> dict[str, Any]:
        """The other entries of a document of this format."""
        if not isinstance(value, dict):
            raise place.wrong(self.what, value)
        if self.name and value.get("format") != self.name:
            raise InputError(f"{place} must be {self.what}, of format {self.name!r}")
        found = value.get("format_version", 0)
        if self.version and (type(found) is not int or found != self.version):
            raise InputError(
                f"{place} must be of format version {self.version}, not {_shown(found)}; "
                "run pvq-hw compile again"
            )
        return {key: item for key, item in value.items() if key not in self.header}


def no_pipe(path: Path) -> None:
    """Raises InputError for a device or a pipe: to open one may wait for ever, and to read it may
    never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} must be a file, not a device or a pipe")


def load_json(path: Path, form: Format, place: Place | None = None) -> dict[str, Any]:
    """The entries of a JSON file without its header; raises InputError where it is none.

    Messages call it by its path, or by ``place``.
    """
    place = place or Place(str(path))
    no_pipe(path)
    try:
        if path.stat().st_size > form.limit:
            raise InputError(f"{place} must be at most {form.limit >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{place} can't be read: {error.strerror}") from None
    return form.check(read_json(data, place, form.what), place)


def read_json(data: bytes | str, place: Place, what: str = "JSON") -> Any:
    """The values of a JSON text, in which every key of an object stands once."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} must be {what}: {_reason(error)}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {quoted(twice)} is there twice")
    return found


def load_toml(path: Path, what: str) -> dict[str, Any]:
    """The values of a TOML file of at most 1 MiB.

    Raises InputError, which calls the file ``what``, where it's too large or no TOML.
    """
    no_pipe(path)
    try:
        if path.stat().st_size > _TOML_BYTES:
            raise InputError(f"{path} must be {what} of at most 1 MiB")
        text = path.read_text(encoding="utf-8")
        if text.count(".") > _MOST_DOTS:
            raise InputError(f"{path} must be {what} with at most {_MOST_DOTS:,} dots")
        return tomllib.loads(text)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a TOML file: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "its values lie too deep in one another"
    return " ".join(ascii(str(error))[1:-1].split())[:200]


def document_text(document: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted keys, one space of indent and a line feed at the end."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


# -- values to JSON -------------------------------------------------------------------------------


def write(value: Any, hint: Any = None) -> Any:
    """A value as JSON values; ``hint`` is its annotation, where that says how."""
    own = _mark(hint)
    if own is not None and own.write is not None:
        return _each(value, own.write) if own.wire is str else own.write(value)
    if isinstance(value, Document):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return write_fields(value)
    if isinstance(value, Mapping):
        return {key: write(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [write(item) for item in value] if isinstance(value, list | tuple) else value


def write_fields(value: Any, but: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass as JSON values, with its ``kind`` where it has one."""
    kind: Any = type(value)
    hints = _hints(kind)
    told = getattr(value, "kind", "")
    found = {"kind": told} if told and told != getattr(value, "usual", "") else {}
    keys = {f.name: _key(value, f.name) for f in fields(value) if f.name not in but}
    return found | {key: write(getattr(value, name), hints[name]) for name, key in keys.items()}


def _key(owner: Any, name: str) -> str:
    """What documents call a field of a dataclass."""
    return str(getattr(owner, "keys", {}).get(name, name))


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Changes a value, or each one of an array."""
    if isinstance(value, np.ndarray):
        return [_each(item, change) for item in value]
    return change(value)


def _mark(hint: Any) -> Checked | None:
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Checked):
            return mark
    return None


# -- JSON to values -------------------------------------------------------------------------------


def read(hint: Any, value: Any, place: Place | str = "") -> Any:
    """The value of type ``hint`` that JSON values stand for.

    Parameters
    ----------
    hint : type
        A dataclass, a TypedDict, a JSON type, ``Any``, a tuple, list, dict or Mapping of them, an
        array of integers or of hexadecimal numbers, or a union that JSON types or ``kind`` tell
        apart. Annotated with `Checked` for all else.
    value : Any
    place : Place or str
        Of the value; a text is the document's name.

    Raises
    ------
    InputError
        With the place in it, what must be there and what is.
    """
    place = Place(place) if isinstance(place, str) else place
    if hint is Any:
        return _plain(value, place)
    if hint in _SIMPLE:
        return _simple((hint,), value, place)
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _checked(hint, value, place)
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(hint), value, place)
    if origin is np.ndarray or hint is np.ndarray:
        return _array(value, place)
    if origin in (tuple, list) or hint in (tuple, list):
        return _sequence(hint, value, place)
    if typing.is_typeddict(hint):
        return _typed_dict(hint, value, place)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return _mapping(typing.get_args(hint), value, place)
    if isinstance(hint, type):
        return _made(hint, value, place)
    raise TypeError(f"no document holds {hint!r}")


_SIMPLE: dict[Any, str] = {
    float: "a number", int: "an integer", str: "text", bool: "true or false", type(None): "empty",
}  # fmt: skip


def _simple(hints: Iterable[Any], value: Any, place: Place) -> Any:
    """A value of one of some JSON types. Integers are numbers, and stay integers."""
    if any(_is_one(value, hint) for hint in hints):
        if isinstance(value, float) and not math.isfinite(value):
            raise place.wrong("a finite number", value)
        if isinstance(value, int) and not -_INTEGERS <= value < _INTEGERS:
            raise place.wrong("of 64 bits at most", value)
        return value
    words = [_SIMPLE[hint] for hint in hints if hint is not type(None)]
    raise place.wrong(" or ".join(words), value)


def _is_one(value: Any, hint: Any) -> bool:
    """Whether a value is of a JSON type; truth is no number."""
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _plain(value: Any, place: Place) -> Any:
    """JSON values of whatever kind."""
    if isinstance(value, dict):
        return {key: _plain(item, place.key(str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, place.item(index)) for index, item in enumerate(value)]
    return _simple(_SIMPLE, value, place)


def _checked(hint: Any, value: Any, place: Place) -> Any:
    inner, mark = hint.__origin__, _mark(hint)
    if OPEN in hint.__metadata__:
        return _typed_dict(inner, value, place, closed=False)
    if mark is None:
        return read(inner, value, place)
    if typing.get_origin(inner) is np.ndarray and mark.wire is str:
        return _array(value, place, mark)
    if mark.wire is not None or not (is_dataclass(inner) or inner is Any):
        value = read(mark.wire or inner, value, place)
    try:
        return mark.read(value)
    except InputError as error:
        raise place.refused(error) from None
    except (ValueError, OverflowError):
        raise place.wrong(mark.rule, value) from None


def _union(hints: tuple[Any, ...], value: Any, place: Place) -> Any:
    if value is None and type(None) in hints:
        return None
    if all(hint in _SIMPLE for hint in hints):
        return _simple(hints, value, place)
    rest = [hint for hint in hints if hint is not type(None)]
    if len(rest) > 1 and all(hasattr(hint, "kind") for hint in rest):
        return read_kind({hint.kind: hint for hint in rest}, value, place)
    simple = [hint for hint in rest if hint in _SIMPLE]
    if type(value) in simple or len(simple) == len(rest):
        return _simple(simple, value, place)
    other = [hint for hint in rest if hint not in _SIMPLE]
    lists = [h for h in other if typing.get_origin(h) in (tuple, list)]
    tables = [h for h in other if h not in lists]
    fits = lists if isinstance(value, list | tuple) and lists else tables or lists
    return read(fits[0], value, place)


def _array(value: Any, place: Place, mark: Checked | None = None) -> Any:
    """Numbers in lists in lists, all of one length: integers, or as marked."""
    if isinstance(value, np.ndarray):  # of Python's, not of a file's
        return value

    def numbers(value: Any, place: Place) -> Any:
        if not isinstance(value, list | tuple):
            raise place.wrong("a list", value)
        if value and isinstance(value[0], list | tuple):
            return [numbers(item, place.item(index)) for index, item in enumerate(value)]
        if mark is None and all(type(v) is int and -_INTEGERS <= v < _INTEGERS for v in value):
            return value
        part = typing.Annotated[float, mark] if mark else int
        return [read(part, item, place.item(index)) for index, item in enumerate(value)]

    found = numbers(value, place)
    try:
        return np.array(found, dtype=np.float64 if mark else np.int64)
    except ValueError:
        raise InputError(f"{place} must be lists of one length") from None


def _sequence(hint: Any, value: Any, place: Place) -> Any:
    if not isinstance(value, list | tuple):
        raise place.wrong("a list", value)
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is tuple and parts and parts[-1] is not Ellipsis:
        if len(value) != len(parts):
            raise place.wrong(f"a list of {len(parts)}", value)
    else:
        parts = (parts[0] if parts else Any,) * len(value)
    return kind(
        read(part, item, place.item(index))
        for index, (part, item) in enumerate(zip(parts, value, strict=True))
    )


def _mapping(parts: tuple[Any, ...], value: Any, place: Place) -> dict[str, Any]:
    hint = parts[1] if parts else Any
    return {
        key: read(hint, item, place.key(key)) for key, item in _table(value, place, None).items()
    }


def _typed_dict(hint: Any, value: Any, place: Place, closed: bool = True) -> dict[str, Any]:
    hints = _hints(hint)
    table = _table(value, place, hints if closed else None)
    _all_there(table, hint.__required_keys__, place)
    return {key: read(hints.get(key, Any), item, place.key(key)) for key, item in table.items()}


def _made(cls: type[T], value: Any, place: Place) -> T:
    """A dataclass, or the one of its subclasses whose ``kind`` is told."""
    if isinstance(value, cls):  # of Python's, not of a file's
        return value
    kinds = {c.kind: c for c in _family(cls) if vars(c).get("kind")}
    if kinds:
        usual = vars(cls).get("usual")
        if usual and isinstance(value, Mapping):
            value = {"kind": usual} | dict(value)
        return typing.cast(T, read_kind(kinds, value, place))
    return _instance(cls, value, place)


def _family(cls: type[Any]) -> list[type[Any]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in _family(sub))]


def read_kind(kinds: Mapping[str, type[Any]], value: Any, place: Place) -> Any:
    """The value of one of some classes that ``kind`` tells, by their kinds."""
    table = dict(_table(value, place, None))
    _all_there(table, ("kind",), place)
    kind = table.pop("kind")
    if not isinstance(kind, str) or kind not in kinds:
        error = place.key("kind").wrong(" or ".join(sorted(kinds)), kind)
        raise InputError(f"{error}{near(kind, kinds) if isinstance(kind, str) else ''}")
    return _instance(kinds[kind], table, place)


def _instance(cls: type[T], value: Any, place: Place) -> T:
    derived = getattr(cls, "derived", ())
    if isinstance(value, Mapping) and derived:
        value = {key: item for key, item in value.items() if key not in derived}
    parts = read_fields(cls, value, place)
    for f in fields(cls):  # type: ignore[arg-type]
        if f.default is MISSING and f.default_factory is MISSING and f.name not in parts:
            raise InputError(f"{place.key(_key(cls, f.name))} is missing")
    try:
        return cls(**parts)
    except (InputError, ValueError, OverflowError, TypeError) as error:
        raise place.refused(error) from None


def read_fields(cls: Any, value: Any, place: Place | str) -> dict[str, Any]:
    """The fields of a dataclass that a table holds, not all of them perhaps."""
    place = Place(place) if isinstance(place, str) else place
    hints = _hints(cls)
    names = {_key(cls, f.name): f.name for f in fields(cls)}
    table = _table(value, place, names)
    return {
        names[key]: read(hints[names[key]], item, place.key(key)) for key, item in table.items()
    }


def _all_there(table: Mapping[str, Any], needed: Iterable[str], place: Place) -> None:
    for key in sorted(needed):
        if key not in table:
            raise InputError(f"{place.key(key)} is missing")


def _table(value: Any, place: Place, known: Iterable[str] | None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise place.wrong("a table", value)
    if known is not None:
        names = list(known)
        for key in value:
            if key not in names:
                raise unknown_key(place, key, names)
    return value


def unknown_key(place: Place, key: str, known: Iterable[str]) -> InputError:
    """The error of a key that a table doesn't have."""
    names = list(known)
    rest = near(key, names) or f"; known are {', '.join(names) or 'none'}"
    return InputError(f"{place} has an unknown key {quoted(key)}{rest}")


@lru_cache(maxsize=512)
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    plain = (typing.NotRequired, typing.Required)
    return {
        key: typing.get_args(hint)[0] if typing.get_origin(hint) in plain else hint
        for key, hint in hints.items()
    }


def _shown(value: Any) -> str:
    """At most 60 characters of a value, in ASCII; Python writes out no endless integer."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length():,} bits"
    try:
        return f"{value!a:.{_SHOWN}}"
    except (ValueError, RecursionError):
        return "a value too long to show"
