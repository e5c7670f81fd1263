"""Processes that are one run: how many there are, which one this is, and what they tell each other.

``torchrun``, or an engine, starts them and tells each by the variables RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR and MASTER_PORT what it is. They are one run within ``joined``; everywhere else there is one
process, and nothing here costs anything.

    process 0   reads and writes the run's folder, logs and prints
    all         compute the same from what all have told: streams of training, shares of queries
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from seqrec.errors import SeqrecError, SettingsError, TrainingError

if TYPE_CHECKING:  # the command line asks how many were started, long before anyone needs these
    import numpy as np
    from torch import Tensor

SECONDS_LATER = 3.0
_waited = False  # whether this process has let the first one speak
_joined = False  # whether this process is one of several that are a run now

LOST = (
    "Another process of this run has ended, so that this one cannot go on. The same command goes on from the "
    "last complete epoch, if the run has an output folder."
)


def launched() -> tuple[int, int]:
    """Which one this process is, from 0, of how many that were started together.

    Raises:
        SettingsError: the variables of the environment that say so are no numbers.
    """
    names = ("RANK", "WORLD_SIZE")
    if not all(name in os.environ for name in (*names, "MASTER_ADDR", "MASTER_PORT")):
        return 0, 1
    try:
        rank, count = (int(os.environ[name]) for name in names)
    except ValueError as error:
        raise SettingsError(
            f"RANK, WORLD_SIZE: expected whole numbers, as torchrun sets them. Got {os.environ['RANK']!r} "
            f"and {os.environ['WORLD_SIZE']!r}."
        ) from error
    return rank, count


def count() -> int:
    """How many processes this run has."""
    return launched()[1] if _joined else 1


def rank() -> int:
    """Which one this is, from 0."""
    return launched()[0] if _joined else 0


def first() -> bool:
    """Whether it is the one that writes."""
    return rank() == 0


def local_rank() -> int:
    """Which one of its machine it is, from 0: it computes on the GPU of that number."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _joined else 0


@contextmanager
def joined() -> Iterator[None]:
    """Processes that were started together are one run within the block, which all leave together. A process
    that was started alone stays alone.

    Log lines are those of the first one; the others keep theirs to themselves.

    Raises:
        TrainingError: the others cannot be reached.
    """
    global _joined
    number, several = launched()
    if several == 1 or _joined:
        yield
        return
    import torch
    import torch.distributed as dist

    _on_loopback()
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    log = logging.getLogger("seqrec")
    level = log.level
    with _together():
        dist.init_process_group(backend)
    _joined = True
    if number:
        log.setLevel(logging.CRITICAL)
    try:
        yield
        wait()
    except SeqrecError as error:
        let_first_speak(str(error))  # as long as the others still hear of this process
        raise
    finally:
        _joined = False
        log.setLevel(level)
        dist.destroy_process_group()


def let_first_speak(message: str) -> None:
    """Waits a little before another process than the first says what it died of, once: most probably the
    first says the same, and whoever started them then ends this one."""
    global _waited
    if launched()[0] and not _waited and not message.startswith(LOST):
        _waited = True
        time.sleep(SECONDS_LATER)


def _on_loopback() -> None:
    """Processes of one machine talk through its loopback, whatever the name of the machine stands for."""
    here = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    here = here or os.environ["MASTER_ADDR"] in ("localhost", "127.0.0.1")
    if here and "lo" in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


@contextmanager
def _together() -> Iterator[None]:
    """Says in one sentence that another process is gone, where torch says it in many.

    Raises:
        TrainingError: it is.
    """
    try:
        yield
    except SeqrecError:
        raise
    except RuntimeError as error:
        raise TrainingError(f"{LOST} ({' '.join(str(error).split())[:200]})") from error


def wait() -> None:
    """Until all are here."""
    if count() > 1:
        import torch

        summed(torch.zeros(1))


def gathered(values: Tensor) -> Tensor:
    """(processes, ...) what each of them has, in their order; all have the same shape, (...).

    Raises:
        TrainingError: a process is lost.
    """
    if count() == 1:
        return values[None]
    import torch.distributed as dist

    of_all = values.new_empty((count(), *values.shape))
    with _together():
        dist.all_gather(list(of_all.unbind()), values.contiguous())
    return of_all


def summed(values: Tensor) -> Tensor:
    """(...) the sum of what each process has, in place. For whole numbers, whose sum has no order.

    Raises:
        TrainingError: a process is lost.
    """
    if count() > 1:
        import torch.distributed as dist

        with _together():
            dist.all_reduce(values)
    return values


def shared(*arrays: np.ndarray) -> None:
    """Fills (...) arrays of whole numbers or bool, in which each process knows a part and has 0 elsewhere,
    with what the others know.

    Raises:
        TrainingError: a process is lost.
    """
    if count() > 1:
        import numpy as np
        import torch

        for array in arrays:
            whole = summed(torch.from_numpy(array.astype(np.int64)))
            array[...] = whole.numpy().astype(array.dtype)


def from_first(content: Callable[[], bytes]) -> bytes:
    """What the first process finds, for all.

    Raises:
        TrainingError: a process is lost.
    """
    if count() == 1:
        return content()
    import torch
    import torch.distributed as dist

    found = bytearray(content() if first() else b"")
    size = int(summed(torch.tensor([len(found)])))
    whole = torch.frombuffer(found, dtype=torch.uint8) if found else torch.empty(size, dtype=torch.uint8)
    if size:
        with _together():
            dist.broadcast(whole, src=0)
    return whole.numpy().tobytes()


def agree(what: str, text: str) -> None:
    """Checks that all processes say the same.

    Args:
        what: it is, for the message.

    Raises:
        TrainingError: they do not.
    """
    if count() == 1:
        return
    import torch

    digest = hashlib.sha256(text.encode()).digest()
    of_all = gathered(torch.frombuffer(bytearray(digest), dtype=torch.uint8))
    if not bool((of_all == of_all[0]).all()):
        raise TrainingError(
            f"expected the same {what} in all {count()} processes. Got others. Start all with one command, "
            "and see that all read the same files."
        )
