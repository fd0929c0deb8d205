"""Where trials run: processes of this machine, or a Dask cluster."""

import contextlib
import importlib.util
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from types import TracebackType
from typing import Any

from pvq_hw.errors import InputError, PvqError, ToolError
from pvq_hw.tools.process import safe_environment
from pvq_hw.tune.trial import Job, Outcome, evaluate_trial

__all__ = ["Runner", "dask_runner", "process_runner"]

_RETRIES = 3  # of trials whose worker died
PATIENCE = 30  # seconds until a cluster must have answered
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Runner:
    """Runs jobs on an executor; jobs whose worker died run again.

    Parameters
    ----------
    start : callable
        Gives an executor, also a new one after the first one broke.
    stop : callable
        Is given the executor at the end; running jobs need not finish.
    """

    def __init__(
        self, start: Callable[[], Executor], stop: Callable[[Executor], None] | None = None
    ) -> None:
        self.start = start
        self.stop = stop or (lambda executor: None)
        self._executor: Executor | None = None

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def run(self, jobs: Sequence[Job], done: Callable[[int, Outcome], None]) -> None:
        """Calls ``done`` with every job's number and outcome, in the order in which they end."""
        left = dict(enumerate(jobs))
        failures = 0
        while left:
            before = len(left)
            try:
                self._round(left, done)
            except BrokenExecutor as error:
                self._end()
                failures = 0 if len(left) < before else failures + 1
                if failures >= _RETRIES:
                    raise ToolError(
                        f"A trial's worker must live to its end, but died {failures} times "
                        f"({error}); fewer --workers take less memory"
                    ) from None

    def _round(self, left: dict[int, Job], done: Callable[[int, Outcome], None]) -> None:
        if self._executor is None:
            self._executor = self.start()
        with _interrupts_wait():
            futures: dict[Future[Outcome], int] = {
                self._executor.submit(evaluate_trial, job): i for i, job in left.items()
            }

        def take(future: Future[Outcome]) -> None:
            number = futures[future]
            done(number, future.result())
            del left[number]

        try:
            for future in as_completed(futures):
                take(future)
        except BaseException as error:
            for future, number in futures.items():  # what is ready is kept
                if number in left and _succeeded(future):
                    take(future)
            if isinstance(error, PvqError | BrokenExecutor) or not isinstance(error, Exception):
                raise
            raise ToolError(f"A trial has failed: {type(error).__name__} {error}") from None

    def _end(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            self.stop(executor)


def _succeeded(future: Future[Outcome]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


# -- processes --------------------------------------------------------------------------------


@contextlib.contextmanager
def process_runner(workers: int) -> Iterator[Runner]:
    """A runner on that many processes of this machine, each with one thread for its arithmetic,
    so that the sums are rounded alike however many there are."""
    if workers < 1:
        raise InputError(f"Workers must be at least 1, not {workers}")
    variables = dict.fromkeys(_THREADS, "1") | safe_environment()
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)  # processes start later than the pool

    def start() -> Executor:
        return ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
        )

    try:
        with Runner(start, _stop_processes) as runner:
            yield runner
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin_worker() -> None:
    """Ctrl-C is the parent's to answer; without a parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _stop_processes(executor: Executor) -> None:
    processes = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()  # the executor's own wait is over after the first shutdown


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Holds Ctrl-C back while processes start, which inherit that until they can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- Dask -------------------------------------------------------------------------------------


@contextlib.contextmanager
def dask_runner(address: str) -> Iterator[Runner]:
    """A runner on the Dask cluster whose scheduler is at ``address``; trials whose worker dies are
    given to another one."""
    if importlib.util.find_spec("distributed") is None:
        raise ToolError("--dask needs the package distributed; pip install 'pvq-hw[dask]'")
    import distributed

    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what matters is said in one line below
    client: Any = None
    try:
        try:
            client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(
                f"--dask must name a scheduler with workers, not {address!r} "
                f"({type(error).__name__})"
            ) from None
        with Runner(
            lambda: client.get_executor(pure=False, retries=_RETRIES),
            lambda executor: executor.shutdown(wait=False),
        ) as runner:
            yield runner
    finally:
        if client is not None:
            client.close()
        logger.setLevel(level)
