"""Which kernels of the linear-algebra library this processor can run, tried in children that may
die."""

import functools
import os
import subprocess
import sys

__all__ = ["CANDIDATES", "GENERIC", "environments", "runnable_kernels"]

CANDIDATES = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "Cooperlake")
"""OpenBLAS's names, from kernels that every x86-64 processor runs to those of AVX-512."""

# Runs products of several shapes with the kernel that the environment asks for, then says which
# kernel the library took: it falls back in silence where it knows no such name.
_PROGRAM = """
import ctypes, pathlib, numpy
for shape in ((3, 5), (64, 64), (130, 70)):
    for kind in (numpy.float64, numpy.float32):
        a = numpy.ones(shape, kind)
        assert ((a @ a.T) == shape[1]).all() and ((a @ a[0]) == shape[1]).all()
name = ""
for file in (pathlib.Path(numpy.__file__).parents[1] / "numpy.libs").glob("*openblas*"):
    for symbol in ("scipy_openblas_get_corename64_", "openblas_get_corename64_"):
        read = getattr(ctypes.CDLL(str(file)), symbol, None)
        if read is not None:
            read.restype = ctypes.c_char_p
            name = read().decode()
print(name)
"""


@functools.cache
def runnable_kernels(candidates: tuple[str, ...] = CANDIDATES) -> tuple[str, ...]:
    """The kernels of ``candidates`` that run here and are what the library takes under that name.

    A kernel whose child dies (SIGILL) or that the library replaces by another is left out. Empty
    where NumPy's library is not OpenBLAS.
    """
    return tuple(kernel for kernel in candidates if _core_name(kernel) == kernel.lower())


def _core_name(kernel: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM],
        env=os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.stdout.strip().lower() if done.returncode == 0 else ""


GENERIC = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
"""Numba's code for any processor of the architecture; compiled anew, it takes a quarter minute."""


def environments() -> list[dict[str, str]]:
    """Ways to compute that should make no difference: kernels, threads, instruction sets.

    The oldest and the newest kernel that run here with one thread and with two, and NumPy's own
    loops without their fastest instructions.
    """
    kernels = runnable_kernels()
    found = [_threads(1), _threads(2) | {"NPY_DISABLE_CPU_FEATURES": _features()}]
    if kernels:
        found[0] |= {"OPENBLAS_CORETYPE": kernels[0]}
        found[1] |= {"OPENBLAS_CORETYPE": kernels[-1]}
    return found


def _threads(count: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(count), "OPENBLAS_NUM_THREADS": str(count)}


def _features() -> str:
    """The instruction sets beyond NumPy's baseline that this processor has, which NumPy leaves
    unused where they are named."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
