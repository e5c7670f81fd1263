"""Logs mutated at random, read: each is read right or refused in one line.

python benchmarks/mutate_logs.py 2000 --seed 0

Small logs of every format are changed by a few random operations (bytes flipped, cut, doubled, quotes, line
ends and NULs inserted, columns dropped, lines swapped, gzip, other encodings) and read with ``read_log`` and
``prepare`` in a child process that has a limit of memory and of time. What was read is compared, ids and all,
with a strict reader (csv and json of the standard library, pyarrow for Parquet) wherever that reads the file;
where it does not, and there are no quotes, rows are compared with lines, unless a warning says that some were
left out. Printed are how many were read and refused, the most memory that a file took, and each traceback,
hang, crash, lost row, long message, and difference between the two; the exit status is 1 if there is any. The
same seed gives the same files.
"""

from __future__ import annotations

import argparse
import collections
import csv
import gzip
import io
import json
import logging
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

SECONDS = 10
MEMORY = 6 << 30
"""Bytes of address space of a child (libraries map about half of it without using it)."""
MOST_MB = 256
"""Memory that reading a small file may take beyond what the process has already (Linux)."""
LONGEST_MESSAGE = 1500
TEXT = (".csv", ".tsv", ".inter", ".txt")
INSERTED = [
    b'"',
    b'""',
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b",",
    b"\t",
    b" ",
    b";",
    b"{",
    b"[",
    b"}",
    b"null",
    b"-1",
]
INSERTED += [
    b"1e400",
    b"inf",
    b"nan",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"9" * 25,
    b"::",
    b"2020-01-31",
    b"'",
]


def tables(rng: random.Random) -> dict[str, bytes]:
    """Name of a file -> its content, before any mutation."""
    n = rng.randrange(1, 40)
    titles = ["Heat", "Heat, The (1995)", 'The "Best" of', "a\nb", 'x, y\nz, "w"', "", "café", '7" disc']
    frame = pl.DataFrame(
        {
            "user_id": [f"u{rng.randrange(6)}" if n % 2 else str(rng.randrange(6)) for _ in range(n)],
            "item_id": [rng.randrange(9) for _ in range(n)],
            "timestamp": [1_500_000_000 + rng.randrange(10**6) for _ in range(n)],
            "rating": [rng.choice([1.0, 2.5, None]) for _ in range(n)],
            "title": [rng.choice(titles) for _ in range(n)],
        }
    )
    plain = frame.drop("title")
    dates = plain.with_columns(pl.from_epoch("timestamp").dt.strftime("%Y-%m-%d %H:%M:%S"))
    parquet, typed = io.BytesIO(), io.BytesIO()
    frame.write_parquet(parquet)
    frame.with_columns(
        pl.from_epoch("timestamp"), pl.col("user_id").cast(pl.Categorical), tags=pl.lit([1, 2])
    ).write_parquet(typed)
    lines = [f"{rng.randrange(5)} {rng.randrange(9)}" for _ in range(n)]
    rows = [{k: v for k, v in row.items() if v is not None or rng.random() < 0.5} for row in frame.to_dicts()]
    return {
        "plain.csv": plain.write_csv().encode(),
        "dates.csv": dates.write_csv().encode(),
        "titles.csv": frame.write_csv().encode(),
        "quoted.csv": frame.write_csv(quote_style="always").encode(),
        "semicolon.csv": plain.write_csv(separator=";").encode(),
        "windows.csv": frame.write_csv(line_terminator="\r\n").encode(),
        "titles.tsv": frame.write_csv(separator="\t").encode(),
        "log.inter": ("user_id:token\titem_id:token\n" + "\n".join(lines).replace(" ", "\t") + "\n").encode(),
        "log.txt": ("\n".join(lines) + "\n").encode(),
        "log.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "log.parquet": parquet.getvalue(),
        "typed.parquet": typed.getvalue(),
    }


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The content after one random operation."""
    at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    end = min(end, at + rng.choice([1, 8, 64, 10**9]))
    lines = data.split(b"\n")
    operation = rng.randrange(12)
    if operation == 0 and data:
        flipped = bytearray(data)
        for _ in range(rng.choice([1, 1, 4])):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if operation == 1:
        return data[:at]
    if operation == 2:
        return data[:at] + data[end:]
    if operation == 3:
        return data[:end] + data[at:]
    if operation in (4, 5, 6):
        return data[:at] + rng.choice(INSERTED) + data[at:]
    if operation == 7:
        return data.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\n\n", b"\n\r"]))
    if operation == 8:
        i = rng.randrange(len(lines))
        return b"\n".join(
            [*lines[:i], *rng.choice([[], [lines[i]] * 2, [b""], [b" \t"], [lines[0]]]), *lines[i + 1 :]]
        )
    if operation == 9:  # drop a column
        byte = rng.choice([b",", b"\t"])
        column = rng.randrange(3)
        return b"\n".join(
            byte.join(f for i, f in enumerate(line.split(byte)) if i != column)
            if rng.random() < 0.9
            else line
            for line in lines
        )
    if operation == 10:
        return gzip.compress(data)
    try:
        return data.decode().encode(rng.choice(["utf-16", "utf-16-le", "utf-8-sig", "utf-32", "latin-1"]))
    except UnicodeError:
        return data[::-1]


def gentle(data: bytes, rng: random.Random) -> bytes:
    """The content after an operation that most readers take: of such files no row may be lost."""
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    operation = rng.randrange(7)
    if operation == 0:
        return data.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\n\n"]))
    if operation == 1:
        return gzip.compress(data)
    if operation == 2:
        return b"\xef\xbb\xbf" + data
    if operation == 3:
        return data.rstrip() + rng.choice([b"", b"\n\n", b"\r\n", b"\n \n"])
    if operation == 4:
        lines[i], lines[j] = lines[j], lines[i]
        return b"\n".join(lines)
    if operation == 5:
        return b"\n".join([*lines[:i], lines[i], rng.choice([lines[i], b""]), *lines[i + 1 :]])
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice([b'"', b"'", b" ", b"\xc3\xa9", b";", b"0"]) + data[at:]


def strictly(name: str, data: bytes) -> list[tuple[str, ...]] | None:
    """The ids in the rows that a strict reader finds, without blanks around them; None where it does not read
    the file."""
    if name.endswith(".parquet"):
        try:
            ids = pq.read_table(io.BytesIO(data), columns=["user_id", "item_id"]).to_pydict()
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            return None
        return [tuple(str(one) for one in row) for row in zip(ids["user_id"], ids["item_id"], strict=True)]
    text = text_of(data)
    if text is None:
        return None
    try:
        if name.endswith(".jsonl"):
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
            return [tuple(str(row[c]).strip() for c in ("user_id", "item_id")) for row in found]
        if name == "log.txt":
            lines = [tuple(line.split()) for line in text.splitlines() if line.strip()]
            return lines if {len(line) for line in lines} == {2} else None
        text = text.lstrip()
        tabs = name.endswith((".tsv", ".inter"))
        delimiter = "\t" if tabs else max(",\t;|", key=text.split("\n")[0].count)
        rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if r]
    except (ValueError, csv.Error, RecursionError, TypeError, KeyError):
        return None
    if {len(row) for row in rows} != {len(rows[0])} if rows else True:
        return None
    header = [c.removesuffix(":token") for c in rows[0]]
    places = [header.index(c) for c in ("user_id", "item_id") if header.count(c) == 1]
    return [tuple(row[i].strip() for i in places) for row in rows[1:]] if len(places) == 2 else None


def text_of(data: bytes) -> str | None:
    """The text of a file, without its mark; None where it is not UTF-8, or has NULs."""
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except (ValueError, EOFError, OSError, zlib.error):
        return None
    return None if "\0" in text else text.lstrip("\ufeff")


def outcome(path: str, folder: str) -> dict:
    """What the two doors make of a file."""
    from seqrec import read_log
    from seqrec.errors import SeqrecError
    from seqrec.sources.preparing import prepare

    said: list[str] = []
    found: dict = {"said": said}
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("seqrec").handlers[:] = [listener]
    before = memory(fresh=True)["VmRSS"]
    for name in ("read_log", "prepare"):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            if name == "read_log":
                log = read_log(path)
                ids = log.frame.select("user_id", "item_id").cast(pl.String).rows()
                found[name], found["ids"] = {"rows": len(log)}, ids
            else:
                found[name] = {"rows": prepare(path, folder).events}
        except SeqrecError as error:
            found[name] = {"refused": str(error)}
        except BaseException as error:  # a panic of a library is no Exception
            found[name] = {"traceback": f"{type(error).__name__}: {str(error)[:200]}", "at": _place(error)}
    found["mb"] = (memory()["VmHWM"] - before) / 1024
    return found


def memory(fresh: bool = False) -> dict[str, int]:
    """KiB that this process holds (VmRSS) and has held at most (VmHWM); zeros where there is no /proc.

    Args:
        fresh: what it has held at most is counted from now on.
    """
    try:
        if fresh:
            Path("/proc/self/clear_refs").write_text("5")
        lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    except OSError:
        return {"VmRSS": 0, "VmHWM": 0}
    return {line[0].rstrip(":"): int(line[1]) for line in lines if line[0] in ("VmRSS:", "VmHWM:")}


def _place(error: BaseException) -> str:
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "seqrec" in f.filename]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(ours[-3:]))


def child() -> None:
    """Reads paths from standard input, writes outcomes to standard output."""
    logging.getLogger("seqrec").propagate = False
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            print(json.dumps(outcome(line.rstrip("\n"), f"{folder}/out")), flush=True)


def answer(process: subprocess.Popen[str], seconds: float) -> str | None:
    """The next line of a child; "" if it ended, None if it worked for so many seconds without one.

    Counted are seconds of a processor where the system tells them (Linux), as others may be busy with the
    machine, and 20 times as many of the clock, as a child may wait for something for ever.
    """
    assert process.stdout
    begin, worked = time.monotonic(), processor_seconds(process.pid)
    while True:
        ready, _, _ = select.select([process.stdout], [], [], 0.5)
        if ready:
            return process.stdout.readline()
        now = processor_seconds(process.pid)
        waited = time.monotonic() - begin
        if (waited if now is None or worked is None else max(now - worked, waited / 20)) > seconds:
            return None


def processor_seconds(pid: int) -> float | None:
    """What a process has worked so far; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Reader:
    """A child process that reads files, started anew when it hangs or dies."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def read(self, path: Path) -> dict:
        if self.process is None:
            command = [sys.executable, __file__, "--child"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            seconds = 120  # to import
        else:
            seconds = SECONDS
        assert self.process.stdin
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        line = answer(self.process, seconds)
        if line:
            return json.loads(line)
        self.process.kill()
        status = self.process.wait()
        self.process = None
        return {"failed": f"died with status {status}" if line == "" else f"took more than {seconds} s"}

    def close(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()
            self.process.wait()


def faults(name: str, data: bytes, found: dict) -> list[str]:
    """What is wrong with an outcome."""
    if "failed" in found:
        return [found["failed"]]
    wrong = []
    read, prepared = found["read_log"], found["prepare"]
    for door, result in (("read_log", read), ("prepare", prepared)):
        if "traceback" in result:
            wrong.append(f"traceback: {door}: {result['traceback']} at {result['at']}")
        message = result.get("refused", "")
        if len(message) > LONGEST_MESSAGE or "\n" in message:
            wrong.append(f"message: {door}: {len(message)} characters: {message[:200]!r}")
    # of a damaged Parquet file ``prepare`` reads only the columns that it needs
    unneeded = name.endswith(".parquet") and "refused" in read and "rows" in prepared
    if not wrong and read != prepared and not unneeded:
        wrong.append(f"differ: read_log {read}, prepare {prepared}")
    if found["mb"] > MOST_MB:
        wrong.append(f"memory: {found['mb']:.0f} MiB")
    strict, text = strictly(name, data), text_of(data)
    if "rows" not in read:
        return wrong
    if strict is not None:
        # an id that is no text is compared by its rows alone: readers write numbers in different ways
        if read["rows"] != len(strict):
            wrong.append(f"rows: {read['rows']} read, {len(strict)} by the strict reader; {found['said']}")
        elif name.endswith(TEXT) and [tuple(ids) for ids in found["ids"]] != strict:
            wrong.append("rows: other ids than by the strict reader")
    elif text is not None and name.endswith((".csv", ".tsv", ".inter", ".jsonl")):
        lines = sum(bool(line.strip()) for line in text.splitlines()) - (not name.endswith(".jsonl"))
        if '"' not in text.replace('"', "" if name.endswith(".jsonl") else '"') and read["rows"] != lines:
            wrong.append(f"rows: {read['rows']} read of {lines} lines; {found['said']}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files at fault")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child()
        return 0
    tally: collections.Counter = collections.Counter()
    reader, bad, most = Reader(), 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.count):
            rng = random.Random(f"{options.seed} {i}")
            name, data = rng.choice(list(tables(rng).items()))
            change = rng.choice([gentle, mutated])
            for _ in range(rng.choice([1, 1, 2, 3])):
                data = change(data, rng)
            path = Path(folder) / name
            path.write_bytes(data)
            found = reader.read(path)
            wrong = faults(name, data, found)
            tally[
                "read" if "rows" in found.get("read_log", {}) else "refused" if not wrong else "neither"
            ] += 1
            tally["compared with a strict reader"] += "rows" in found.get("read_log", {}) and (
                strictly(name, data) is not None
            )
            most = max(most, found.get("mb", 0))
            for what in wrong:
                tally[what.split(":")[0]] += 1
                print(f"{i} {name}: {what}", flush=True)
            if wrong:
                bad += 1
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{i}-{name}").write_bytes(data)
    reader.close()
    print(
        f"{options.count} files, seed {options.seed}: {bad} at fault. "
        + ", ".join(f"{k} {n}" for k, n in tally.items())
        + f"; at most {most:.0f} MiB a file"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
