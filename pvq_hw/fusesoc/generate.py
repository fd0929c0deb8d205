"""FuseSoC's generator: a model file in, a core out.

FuseSoC runs it with the name of a file that has the parameters, in the folder that gets the core:
``model`` and ``target``, besides ``calibrate`` (a data file), ``interface`` and ``name`` as
`pvq_hw.Accelerator.export` takes them, and whatever else `pvq_hw.compile` takes.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["generate", "main"]


def generate(ask: dict[str, Any]) -> None:
    """Writes the core that ``ask`` describes, FuseSoC's parameters, into the current folder."""
    import pvq_hw

    root, options = Path(ask["files_root"]), dict(ask.get("parameters") or {})
    if "model" not in options:
        raise pvq_hw.InputError("Parameters of the generator must have 'model', a file")
    model, data = root / options.pop("model"), options.pop("calibrate", None)
    name, interface = options.pop("name", "accelerator"), options.pop("interface", "stream")
    calibrate = data and pvq_hw.load_data(root / data, options.get("input_scale", 1.0))
    made = pvq_hw.compile(model, "out", calibrate=calibrate, **options)
    made.export("core", flow="fusesoc", interface=interface, name=name)
    core = Path("core", f"{name}.core")
    text = core.read_text(encoding="utf-8")
    own = f"name: pvq-hw:accelerators:{name}:1.0.0\n"
    assert own in text
    core.write_text(text.replace(own, f"name: {ask['vlnv']}\n"), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """What FuseSoC calls; gives the exit status."""
    from pvq_hw.errors import PvqError

    yaml: Any = importlib.import_module("yaml")  # FuseSoC's own
    try:
        generate(yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8")))
    except PvqError as error:
        print(f"pvq-hw: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
