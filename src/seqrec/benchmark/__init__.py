"""Benchmarks: runs under versioned protocols, one result file each, and a leaderboard made from these.

from seqrec import benchmark
benchmark.run("ml-100k-leave-one-out-v1", models=["popularity", "gru4rec"])
"""

from seqrec.benchmark.results import Result, collect
from seqrec.benchmark.runner import run
from seqrec.experiment.protocol import Protocol, names, read_protocol

__all__ = ["Protocol", "Result", "collect", "names", "read_protocol", "run"]
