"""`seqrec` for tests that type many commands: each is forked from a process that has imported torch already,
which takes longer than most of them. All else is as it is: arguments, folder, environment, standard streams
and exit status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

COMMAND = """#!{python} -ES
import json, os, socket, sys
if sys.argv[1:2] == ["serve"]:  # it is sent signals
    os.execv("{python}", ["{python}", "-m", "seqrec", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as warm:
    warm.connect("{address}")
    asked = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(warm, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    warm.sendall(asked)
    status = warm.recv(1)
sys.exit(status[0] if status else 1)
"""


@contextlib.contextmanager
def warm_seqrec(folder: Path) -> Iterator[str]:
    """A folder for the front of PATH, in which such a `seqrec` is, until the block ends. `seqrec worker` is
    the worker of a benchmark, whose parent is then the process in the file ``pid``."""
    address, command = folder / "warm.sock", folder / "seqrec"
    command.write_text(COMMAND.format(python=sys.executable, address=address))
    command.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, __file__, str(address)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        (folder / "pid").write_text(str(process.pid))
        assert process.stdout is not None
        assert process.stdout.readline() == b"warm\n"
        try:
            yield str(folder)
        finally:
            process.kill()


def _main(address: str) -> None:
    import seqrec.benchmark.worker
    import seqrec.cli
    import seqrec.experiment.train
    import seqrec.models.gru4rec
    import seqrec.models.hrm
    import seqrec.models.sasrec  # noqa: F401

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("warm", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            asked, _ = listening.accept()
            if os.fork():
                asked.close()
                continue
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(asked)


def _answer(asked: socket.socket) -> None:
    length, streams, _, _ = socket.recv_fds(asked, 8, 3)
    content = b""
    while len(content) < int.from_bytes(length, "big"):
        content += asked.recv(1 << 16)
    arguments, folder, environment = json.loads(content)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.argv = arguments
    status = 0
    try:
        if arguments[1:] == ["worker"]:
            status = sys.modules["seqrec.benchmark.worker"].main()
        else:
            sys.modules["seqrec.cli"].main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asked.sendall(bytes([status]))
        os._exit(status)


if __name__ == "__main__":
    _main(sys.argv[1])
