"""Kinds and their faces: what is known of every kind of node, layer, unit and core.

A `Registry` has the kinds of one thing by their names, and the faces of that thing: what is asked
of every kind where it matters, such as a unit's timing in `pvq_hw.engine.timing` and its circuit in
`gateware.accelerator.circuits`. A kind's answer to a face is a function that registers itself, from
wherever the kind is defined. What is not registered is refused by name.
"""

from collections.abc import Callable, Iterable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from pvq_hw.errors import InputError
from pvq_hw.naming import near, quoted

__all__ = ["Face", "Registry"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type[Any])
F = TypeVar("F", bound=Callable[..., Any])


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


class Registry(Generic[R]):
    """The kinds of one thing by name, and that thing's faces.

    Parameters
    ----------
    thing : str
        ``"unit"``, ``"core"``, ``"layer"``, ``"node"``.
    key : str
        The class attribute that names a kind.
    """

    def __init__(self, thing: str, key: str = "kind") -> None:
        self.thing, self.key = thing, key
        self._kinds: dict[str, type[R]] = {}
        self.faces: dict[str, Face[..., Any]] = {}

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

    def named(self, name: object, where: str = "") -> type[R]:
        """The class of a kind.

        Parameters
        ----------
        name : object
            From a file: of whatever type.
        where : str
            What begins the message of an unknown one.

        Raises
        ------
        InputError
            The kind is not registered.
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

    def kinds(self) -> dict[str, type[R]]:
        """All classes by name."""
        return dict(self._kinds)

    def face(self, name: str) -> Face[..., Any]:
        """A new face of this thing; raises InputError where there is one of that name."""
        if name in self.faces:
            raise InputError(f"A {self.thing} has a face {name!r} already")
        face: Face[..., Any] = Face(self.thing, name)
        self.faces[name] = face
        return face

    def missing(self, kinds: Iterable[type[R]] | None = None) -> list[str]:
        """Faces that kinds lack, as ``"<kind> has no <face>"``, for tests of whole registries."""
        return [
            f"{_kind_name(kind)} has no {face.name}"
            for kind in (self._kinds.values() if kinds is None else kinds)
            for face in self.faces.values()
            if not face.has(kind)
        ]


def _bases(kind: type[Any] | str) -> tuple[type[Any] | str, ...]:
    return (kind,) if isinstance(kind, str) else kind.__mro__


def _kind_name(cls: type[Any]) -> str:
    return str(getattr(cls, "kind", "") or getattr(cls, "op", "") or cls.__name__)
