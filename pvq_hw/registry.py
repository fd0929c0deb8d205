"""Kinds and their faces: what is known of every kind of node, layer, unit and core.

A `Registry` has the kinds of one thing by their names, and the faces of that thing: what is asked
of every kind where it matters, such as a unit's timing in `pvq_hw.engine.timing` and its circuit in
`gateware.accelerator.circuits`. A kind's answer to a face is a function that registers itself, from
wherever the kind is defined. What is not registered is refused by name. Things whose kinds are
values instead of classes, such as families of devices, have a `Values`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from pvq_hw.errors import InputError
from pvq_hw.naming import near, quoted

__all__ = ["Face", "Facts", "Registry", "ValueFace", "Values"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type[Any])
F = TypeVar("F", bound="Face[..., Any] | Facts[Any]")
T = TypeVar("T")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


V = TypeVar("V", bound=_Named)


class Face(Generic[P, R]):
    """A function of values of several kinds: each kind has its own, which its subclasses share.

    Parameters
    ----------
    thing : str
        What it is asked of: ``"unit"``.
    name : str
        What it gives: ``"timing"``.

    Raises
    ------
    InputError
        When called with a value of a kind without this face; the line names the value, the face
        and the kind.
    """

    def __init__(self, thing: str, name: str) -> None:
        self.thing, self.name = thing, name
        self._found: dict[type[Any] | str, Callable[..., R]] = {}

    def of(
        self, *kinds: type[Any] | str
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Callable[Concatenate[Any, P], R]]:
        """Decorator: makes a function the face of some kinds, by their classes, or by their names
        where values are as a file has them."""

        def register(
            function: Callable[Concatenate[Any, P], R],
        ) -> Callable[Concatenate[Any, P], R]:
            for kind in kinds:
                self._found[kind] = function
            return function

        return register

    def has(self, kind: type[Any] | str) -> bool:
        """Whether a kind has this face."""
        return any(base in self._found for base in _bases(kind))

    def find(self, kind: type[Any] | str, name: str | None = None) -> Callable[..., R]:
        """The function of a kind; raises InputError, with the value's name, where there is none."""
        for base in _bases(kind):
            if base in self._found:
                return self._found[base]
        which = self.thing.capitalize() + ("" if name is None else f" {quoted(name)}")
        shown = quoted(kind) if isinstance(kind, str) else repr(_kind_name(kind))
        raise InputError(f"{which} has no {self.name}: its kind {shown} is not known")

    def __call__(self, value: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        name = getattr(value, "name", None)
        return self.find(type(value), None if name is None else str(name))(value, *args, **kwargs)


class Facts(Generic[R]):
    """A face that is data: what is known of each kind of a thing, by the kind's name.

    Raises
    ------
    InputError
        When asked for a kind of which nothing is known.
    """

    def __init__(self, thing: str, name: str, known: Mapping[str, R]) -> None:
        self.thing, self.name = thing, name
        self._known = dict(known)

    def has(self, kind: object) -> bool:
        """Whether it is known of a kind."""
        return kind in self._known

    def add(self, kind: str, value: R) -> None:
        """What is known of one more kind."""
        self._known[kind] = value

    def __getitem__(self, kind: str) -> R:
        if kind not in self._known:
            raise InputError(f"{self.thing.capitalize()} {quoted(kind)} has no {self.name}")
        return self._known[kind]


class ValueFace(Face[P, R]):
    """A face of named values: each has its own function, which it is given together with the rest.

    It is called with a value or with its name.
    """

    def __call__(self, value: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        name = value if isinstance(value, str) else value.name
        return self.find(name)(value, *args, **kwargs)


class _Kinds(Generic[T]):
    """What a thing's kinds are by name, and its faces."""

    def __init__(self, thing: str) -> None:
        self.thing = thing
        self._kinds: dict[str, T] = {}
        self.faces: dict[str, Face[..., Any] | Facts[Any]] = {}

    def named(self, name: object, where: str = "") -> T:
        """What is registered under a name.

        Parameters
        ----------
        name : object
            From a file: of whatever type.
        where : str
            What begins the message of an unknown one.

        Raises
        ------
        InputError
            Nothing is.
        """
        found = self._kinds.get(name) if isinstance(name, str) else None
        if found is None:
            shown = quoted(name) if isinstance(name, str) else f"{name!r:.60}"
            hint = near(name, self._kinds) if isinstance(name, str) else ""
            raise InputError(
                f"{where or self.thing.capitalize()} is of kind {shown}, which is not known: "
                f"{', '.join(sorted(self._kinds))} are{hint}"
            )
        return found

    def kinds(self) -> dict[str, T]:
        """All by name."""
        return dict(self._kinds)

    def _new(self, face: F) -> F:
        if face.name in self.faces:
            raise InputError(f"A {self.thing} has a face {face.name!r} already")
        self.faces[face.name] = face
        return face


class Registry(_Kinds[type[R]]):
    """The kinds of one thing by name, and that thing's faces.

    Parameters
    ----------
    thing : str
        ``"unit"``, ``"core"``, ``"layer"``, ``"node"``.
    key : str
        The class attribute that names a kind.
    """

    def __init__(self, thing: str, key: str = "kind") -> None:
        super().__init__(thing)
        self.key = key

    def kind(self, cls: C) -> C:
        """Class decorator: registers a kind under its name; another class of that name is refused.

        Raises InputError where the name is taken.
        """
        name = getattr(cls, self.key)
        found = self._kinds.setdefault(name, cls)
        if (found.__module__, found.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(
                f"A {self.thing} of kind {name!r} is known already: "
                f"{found.__module__}.{found.__qualname__}"
            )
        self._kinds[name] = cls
        return cls

    def face(self, name: str) -> Face[..., Any]:
        """A new face of this thing; raises InputError where there is one of that name."""
        return self._new(Face(self.thing, name))

    def missing(self, kinds: Iterable[type[R]] | None = None) -> list[str]:
        """Faces that kinds lack, as ``"<kind> has no <face>"``, for tests of whole registries."""
        return [
            f"{_kind_name(kind)} has no {face.name}"
            for kind in (self._kinds.values() if kinds is None else kinds)
            for face in self.faces.values()
            if not face.has(kind)
        ]


class Values(_Kinds[V]):
    """The values of one thing by their ``name``, and what is asked of each: what a `Registry` is
    for classes."""

    def add(self, value: V) -> V:
        """Registers a value; raises InputError where another has its name."""
        found = self._kinds.setdefault(value.name, value)
        if found != value:
            raise InputError(f"A {self.thing} {value.name!r} is known already")
        return found

    def forget(self, name: str) -> None:
        """Takes a value out again."""
        self._kinds.pop(name, None)

    def face(self, name: str) -> ValueFace[..., Any]:
        """A new face; raises InputError where there is one of that name."""
        return self._new(ValueFace(self.thing, name))

    def facts(self, name: str, known: Mapping[str, R]) -> Facts[R]:
        """A new face that is data; raises InputError where there is one of that name."""
        return self._new(Facts(self.thing, name, known))

    def missing(self) -> list[str]:
        """Faces that values lack, as ``"<value> has no <face>"``, for tests of whole registries."""
        return [
            f"{name} has no {face.name}"
            for name in self._kinds
            for face in self.faces.values()
            if not face.has(name)
        ]


def _bases(kind: type[Any] | str) -> tuple[type[Any] | str, ...]:
    return (kind,) if isinstance(kind, str) else kind.__mro__


def _kind_name(cls: type[Any]) -> str:
    return str(getattr(cls, "kind", "") or getattr(cls, "op", "") or cls.__name__)
