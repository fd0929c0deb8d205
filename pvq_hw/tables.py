"""Small tables of figures, as text and as HTML, for values that are shown in a notebook."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "format_name"]


def format_name(signed: bool, bits: int) -> str:
    """``"u8"`` or ``"s16"``."""
    return f"{'s' if signed else 'u'}{bits}"


@dataclass(frozen=True)
class Table:
    """A title, lines of figures, and rows under a header; texts may be anybody's.

    Parameters
    ----------
    title : str
    lines : sequence of (str, str)
        What, and how much.
    header : sequence of str
    rows : sequence of sequences of str
        The first column is a name, the others are figures.
    """

    title: str
    lines: Sequence[tuple[str, str]]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """The table for a terminal, one line a row."""
        out = [_plain(self.title)]
        wide = max((len(_plain(what)) for what, _ in self.lines), default=0)
        out += [f"  {_plain(what):<{wide}}  {_plain(much)}" for what, much in self.lines]
        if self.rows:
            cells = [[_plain(c) for c in row] for row in (self.header, *self.rows)]
            widths = [max(len(row[i]) for row in cells) for i in range(len(self.header))]
            for first, *rest in cells:
                figures = (f"{c:>{w}}" for c, w in zip(rest, widths[1:], strict=True))
                out.append(f"  {first:<{widths[0]}}  {'  '.join(figures)}".rstrip())
        return "\n".join(out)

    def html(self) -> str:
        """The table for a notebook."""
        lines = "".join(f"<tr><th style='text-align:left'>{_safe(what)}</th><td>{_safe(much)}</td>"
                        "</tr>" for what, much in self.lines)  # fmt: skip
        head = "".join(f"<th>{_safe(c)}</th>" for c in self.header)
        body = "".join(
            f"<tr><th style='text-align:left'>{_safe(first)}</th>"
            + "".join(f"<td style='text-align:right'>{_safe(c)}</td>" for c in rest) + "</tr>"
            for first, *rest in self.rows
        )  # fmt: skip
        figures = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return (
            f"<div><b>{_safe(self.title)}</b>"
            + (f"<table><tbody>{lines}</tbody></table>" if lines else "")
            + (figures if body else "") + "</div>"
        )  # fmt: skip


def _plain(text: str) -> str:
    """One printable line."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _safe(text: str) -> str:
    return html.escape(_plain(text))
