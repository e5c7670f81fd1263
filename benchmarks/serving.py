"""What a service stands: requests a second, reloads under load, kills under load, hostile requests, start-up.

    python benchmarks/serving.py load MODEL [--connections 8] [--seconds 10] [--length 50]
    python benchmarks/serving.py reloads MODEL [--reloads 20] [--requests 20000]
    python benchmarks/serving.py kills MODEL [--kills 50]
    python benchmarks/serving.py hostile MODEL [--examples 5000]     (needs schemathesis)
    python benchmarks/serving.py start MODEL [--rounds 5]
    python benchmarks/serving.py servers MODEL [--rounds 3]          (needs granian and hypercorn)

MODEL is the folder of a trained model or of one exported to ONNX. Service and client share the machine. The
client is a few lines on bare sockets, so that it takes as little of the machine as it can; its requests are
distinct histories of the model's items, made before the clock starts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


@dataclass
class Service:
    """A running ``seqrec serve``.

    Attributes:
        process, port: of it.
        logged: its log lines.
    """

    process: subprocess.Popen[str]
    port: int
    logged: list[str] = field(default_factory=list)

    def memory(self) -> float:
        """MiB that it holds now."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+([0-9]+) kB", text)
        assert found is not None
        return int(found[1]) / 1024

    def cpu(self) -> float:
        """Seconds of processor time so far, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Service]:
    """A service on a free port."""
    command = [sys.executable, "-m", "seqrec", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    service = Service(process, 0)
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if '"path"' not in line:
                service.logged.append(line)
            if found := re.search(r"Serving .*:([0-9]+)\.", line):
                service.port = int(found[1])
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        ready.wait()
        assert service.port, service.logged
        yield service
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait()


def items_of(folder: str) -> list[Any]:
    """The raw ids of a model's items."""
    places = [Path(folder), Path(folder) / "serving", Path(folder) / "model"]
    path = next(p for place in places for p in sorted(place.glob("items*.parquet")))
    return pl.read_parquet(path).to_series(0).to_list()


def request(path: str, body: object, method: str = "POST") -> bytes:
    """A request as bytes."""
    content = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(content)}\r\n\r\n".encode() + content


def recommends(folder: str, length: int, count: int = 2_000, k: int = 10) -> list[bytes]:
    """Requests for one random history each."""
    items, draw = items_of(folder), random.Random(0)
    return [
        request("/v1/recommend", {"sequences": [draw.choices(items, k=length)], "k": k}) for _ in range(count)
    ]


class Client(asyncio.Protocol):
    """One connection, which asks again as soon as it is answered."""

    def __init__(self, requests: Iterator[bytes], until: float):
        self.requests, self.until = requests, until
        self.seconds: list[float] = []
        self.refused: list[bytes] = []
        self.buffer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        content = next(self.requests, None)
        if content is None or time.perf_counter() > self.until:
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self.begin = time.perf_counter()
        self.transport.write(content)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        found = re.search(rb"(?i)content-length: *([0-9]+)", head)
        if found is None or len(body) < int(found[1]):
            return
        self.seconds.append(time.perf_counter() - self.begin)
        if not head.startswith(b"HTTP/1.1 200"):
            self.refused.append(self.buffer)
        self.buffer = b""
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the service hung up"))


async def ask(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> list[Client]:
    """Asks over so many connections for so long, or until there are no more requests."""
    loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
    clients = [
        (await loop.create_connection(lambda: Client(requests, until), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for client in clients))
    return clients


def endless(requests: list[bytes]) -> Iterator[bytes]:
    """The requests over and over."""
    while True:
        yield from requests


def run(coroutine: Any) -> Any:
    """Runs it in uvloop where that is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(coroutine)
    return uvloop.run(coroutine)


def load(a: argparse.Namespace) -> None:
    """Requests a second, and how long each took."""
    requests = recommends(a.model, a.length)
    with serving(a.model, *a.serve) as service:
        run(ask(service.port, endless(requests), a.connections, 2))
        begin, before = time.perf_counter(), service.cpu()
        clients = run(ask(service.port, endless(requests), a.connections, a.seconds))
        took, cpu = time.perf_counter() - begin, service.cpu() - before
        memory = service.memory()
    seconds = np.array([s for client in clients for s in client.seconds])
    assert not any(client.refused for client in clients), clients[0].refused[:1]
    p50, p90, p99 = np.quantile(seconds, [0.5, 0.9, 0.99]) * 1000
    print(
        f"{a.model}: {len(seconds) / took:,.0f} requests/s over {a.connections} connections, one history of "
        f"{a.length} items each; p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms; "
        f"{cpu / len(seconds) * 1000:.2f} ms of processor time a request; memory {memory:,.0f} MiB"
    )


def reloads(a: argparse.Namespace) -> None:
    """New states of a model under load."""
    import shutil

    requests = recommends(a.model, 50)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "served"
        source = next(
            p
            for p in (Path(a.model) / "serving", Path(a.model) / "model", Path(a.model))
            if (p / "model.json").exists() or (p / "onnx.json").exists()
        )
        shutil.copytree(source, folder)
        marker = folder / ("onnx.json" if (folder / "onnx.json").exists() else "model.json")
        stop = threading.Event()

        def renew() -> None:
            content = marker.read_text()
            done = 0
            while done < a.reloads and not stop.is_set():
                before = sum("now serves the state" in line for line in service.logged)
                # the same model, with another marker: a blank more
                temporary = marker.with_suffix(".new")
                temporary.write_text(content + " " * (done + 1))
                temporary.replace(marker)
                os.kill(service.process.pid, signal.SIGHUP)
                while sum("now serves the state" in line for line in service.logged) == before:
                    if stop.is_set():
                        return
                    time.sleep(0.01)
                done += 1
            counted.append(done)

        counted: list[int] = []
        with serving(f"served={folder}", "--set", "reload_seconds=0") as service:
            thread = threading.Thread(target=renew)
            thread.start()
            some = (requests[i % len(requests)] for i in range(a.requests))
            clients = run(ask(service.port, some, 8, 3_600))
            asked = sum(len(client.seconds) for client in clients)
            while thread.is_alive():  # requests go on until the last reload
                more = run(ask(service.port, endless(requests), 8, 1))
                clients += more
                asked += sum(len(client.seconds) for client in more)
            thread.join()
        failed = sum(len(client.refused) for client in clients)
        slowest = max(s for client in clients for s in client.seconds)
        print(
            f"{counted[0]} reloads under load: {failed} of {asked:,} requests failed; the slowest took "
            f"{slowest * 1000:.0f} ms"
        )


class Sender(Client):
    """Sends one event after another, and notes which were acknowledged."""

    def __init__(
        self, user: int, numbers: Iterator[int], items: list[Any], acknowledged: set[tuple[int, int]]
    ):
        super().__init__(iter(()), 0)
        self.user, self.numbers, self.items, self.acknowledged = user, numbers, items, acknowledged
        self.number = -1

    def _ask(self) -> None:
        if self.number >= 0 and not self.refused:
            self.acknowledged.add((self.user, self.number))
        self.number = next(self.numbers)
        item = self.items[self.number % len(self.items)]
        event = {"user_id": self.user, "item_id": item, "timestamp": self.number}
        self.begin = time.perf_counter()
        self.transport.write(request("/v1/events", {"events": [event]}))  # type: ignore[attr-defined]


async def send(senders: list[Sender], service: Service, seconds: float) -> None:
    """Sends events until the service is killed, after so long."""
    loop = asyncio.get_running_loop()
    for sender in senders:
        await loop.create_connection(lambda sender=sender: sender, "127.0.0.1", service.port)
    await asyncio.sleep(seconds)
    service.process.kill()
    await asyncio.gather(*(sender.done for sender in senders), return_exceptions=True)


def kills(a: argparse.Namespace) -> None:
    """Events that were acknowledged, after kill -9."""
    items, draw = items_of(a.model), random.Random(0)
    acknowledged: set[tuple[int, int]] = set()
    with tempfile.TemporaryDirectory() as root:
        for kill in range(a.kills):
            with serving(a.model, "--events", root) as service:

                async def one(kill: int = kill, service: Service = service) -> None:
                    numbers = iter(range(10_000_000))
                    senders = [Sender(kill, numbers, items, acknowledged) for _ in range(8)]
                    await send(senders, service, draw.uniform(0.05, 0.6))

                run(one())
            print(f"kill {kill + 1} of {a.kills}: {len(acknowledged):,} acknowledged", flush=True)
        with serving(a.model, "--events", root):
            pass  # what the last one left becomes Parquet, too
        kept = pl.read_parquet(Path(root) / "events-*.parquet")
        found = set(zip(kept["user_id"].to_list(), kept["timestamp"].cast(int).to_list()))
        left = [p.name for p in Path(root).iterdir() if p.suffix != ".parquet" and p.name != ".lock"]
    print(
        f"{a.kills} kills: {len(acknowledged - found)} of {len(acknowledged):,} acknowledged events lost, "
        f"{len(kept):,} kept, {len(kept) - len(found)} twice; left behind: {left or 'nothing'}"
    )


def hostile(a: argparse.Namespace) -> None:
    """Requests made from the OpenAPI, valid and not."""
    with tempfile.TemporaryDirectory() as root, serving(a.model, "--events", root) as service:
        memory = []
        before = service.memory()
        each = 500
        for seed in range(-(-a.examples // each)):
            command = [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"http://127.0.0.1:{service.port}/openapi.json",
                "--checks=not_a_server_error,status_code_conformance,content_type_conformance,"
                "response_schema_conformance",
                "--phases=examples,coverage,fuzzing",
                "--mode=all",
                f"--max-examples={each // 6}",
                f"--seed={seed}",
                "--continue-on-failure",
                "--no-color",
            ]
            done = subprocess.run(command, capture_output=True, text=True, cwd=root)
            memory.append(service.memory())
            found = re.search(r"([0-9,]+) generated", done.stdout) or re.search(
                r"([0-9,]+) cases", done.stdout
            )
            print(
                f"seed {seed}: exit {done.returncode}, {found and found[0]}; {memory[-1]:,.0f} MiB",
                flush=True,
            )
            if done.returncode:
                print(done.stdout[-4000:])
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics") as answer:
            text = answer.read().decode()
        counts: dict[str, float] = {}
        for status, count in re.findall(r'seqrec_requests_total\{.*status="([0-9]+)"\} ([0-9.e+]+)', text):
            counts[status] = counts.get(status, 0) + float(count)
        print(
            f"answers by status: { {k: int(v) for k, v in sorted(counts.items())} }; memory "
            f"{before:,.0f} MiB before, {memory[0]:,.0f} MiB after the first seed, {memory[-1]:,.0f} MiB at "
            f"the end; alive: {service.process.poll() is None}"
        )


def start(a: argparse.Namespace) -> None:
    """From the command to its first answer."""
    content = recommends(a.model, 50, 1)[0]
    took = []
    for _ in range(a.rounds):
        begin = time.perf_counter()
        with serving(a.model) as service:
            clients = run(ask(service.port, iter([content]), 1, 60))
            assert not clients[0].refused
            took.append(time.perf_counter() - begin)
    print(f"{a.model}: first answer after {statistics.median(took):.2f} s (median of {a.rounds})")


def _application(folder: str) -> Any:
    """What ``seqrec serve`` gives its server."""
    from seqrec.service.app import Service as Answers
    from seqrec.service.app import make_app
    from seqrec.service.registry import Registry, Source
    from seqrec.service.telemetry import Telemetry
    from seqrec.serving.settings import ServiceSettings

    measured = Telemetry()
    registry = Registry(
        [Source("served", folder, 1.0)], ServiceSettings(), measured=measured.batch, reloaded=measured.reload
    )

    @contextlib.asynccontextmanager
    async def running() -> Any:
        yield

    return make_app(Answers(registry, None, measured), None, running)


def under(a: argparse.Namespace) -> None:
    """Serves the application of the model by another server, ``SERVER:PORT``, until it is killed."""
    name, port = a.serve[0].split(":")
    app = _application(a.model)
    if name == "uvicorn":
        import uvicorn

        uvicorn.run(app, port=int(port), log_config=None, access_log=False)
    elif name == "hypercorn":
        import hypercorn.asyncio
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"127.0.0.1:{port}"]
        run(hypercorn.asyncio.serve(app, config))
    else:
        from granian.constants import Interfaces
        from granian.server.embed import Server

        run(Server(app, port=int(port), interface=Interfaces.ASGI).serve())


def servers(a: argparse.Namespace) -> None:
    """The same application under several servers, in turns: requests a second, as ratios to uvicorn's."""
    requests = recommends(a.model, a.length)
    found: dict[str, list[float]] = {name: [] for name in ("uvicorn", "granian", "hypercorn")}
    late: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(a.rounds):
        for name in found:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command = [sys.executable, __file__, "under", a.model, f"{name}:{port}"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                _wait_for(port)
                run(ask(port, endless(requests), a.connections, 2))
                begin = time.perf_counter()
                clients = run(ask(port, endless(requests), a.connections, a.seconds))
                took = time.perf_counter() - begin
            except ConnectionError as error:
                print(f"{name}: {error}", flush=True)
                continue
            finally:
                process.kill()
                process.wait()
            assert not any(client.refused for client in clients), clients[0].refused[:1]
            seconds = np.array([s for client in clients for s in client.seconds])
            found[name].append(len(seconds) / took)
            late[name].append(float(np.quantile(seconds, 0.99)) * 1000)
    reference = statistics.median(found["uvicorn"])
    for name, each in found.items():
        if not each:
            continue
        middle = statistics.median(each)
        print(
            f"{name}: {middle:,.0f} requests/s ({middle / reference:.2f} of uvicorn), p99 "
            f"{statistics.median(late[name]):.1f} ms; rounds {', '.join(f'{one:,.0f}' for one in each)}"
        )


def _wait_for(port: int) -> None:
    until = time.perf_counter() + 60
    while time.perf_counter() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens at port {port}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["load", "reloads", "kills", "hostile", "start", "servers", "under"])
    parser.add_argument("model")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--examples", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("serve", nargs="*", help="further arguments of seqrec serve, after --")
    a = parser.parse_args()
    globals()[a.what](a)


if __name__ == "__main__":
    main()
