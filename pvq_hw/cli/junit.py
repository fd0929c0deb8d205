"""``--junit FILE``: what a verb found, as the XML that continuous integration shows."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pvq_hw.files import whole_file

__all__ = ["write_junit"]

# What XML 1.0 has no way to say (section 2.2).
_UNSPEAKABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(
    path: Path,
    verb: str,
    subject: str,
    status: int,
    seconds: float,
    document: Mapping[str, Any] | None = None,
    message: str = "",
) -> None:
    """Writes a suite of one test.

    Parameters
    ----------
    path : Path
    verb, subject : str
        What was done to what: the test's class and name.
    status : int
        Exit status: 0 passed, 1 failed, else an error of input or environment.
    seconds : float
    document : mapping, optional
        The verb's JSON document; its findings become the failure's text.
    message : str
        What the verb said, where it ended early.

    Raises InputError where the file can't be written.
    """
    lines = [message] if message else _lines(document or {})
    counts = {"tests": "1", "failures": str(int(status == 1)), "errors": str(int(status > 1))}
    time = f"{seconds:.3f}"
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", counts | {"name": "pvq-hw", "time": time})
    test = ElementTree.SubElement(
        suite, "testcase",
        {"classname": f"pvq-hw.{verb}", "name": _clean(subject), "time": time},
    )  # fmt: skip
    if status:
        first = _clean(lines[0] if lines else f"exit status {status}")
        kind = "failure" if status == 1 else "error"
        what = ElementTree.SubElement(test, kind, {"message": first})
        what.text = _clean("\n".join(lines))
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode", xml_declaration=False)
    with whole_file(path) as new:
        new.write_text(
            f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n', encoding="utf-8", newline="\n"
        )


def _lines(document: Mapping[str, Any]) -> list[str]:
    """What failed, a line each."""
    findings = document.get("findings") or ()
    lines = [" ".join(str(v) for v in f.values() if v) if isinstance(f, Mapping) else str(f)
             for f in findings]  # fmt: skip
    if document.get("mismatches"):
        lines.append(
            f"{document['mismatches']} mismatches in {document['outputs_compared']} outputs"
        )
    if document.get("verdict") and not document.get("ok", True):
        lines.append(str(document["verdict"]))
    return lines


def _clean(text: str) -> str:
    return _UNSPEAKABLE.sub("?", text.encode("utf-8", "replace").decode("utf-8"))
