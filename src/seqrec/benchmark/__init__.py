"""Benchmarks: runs under versioned protocols, one result file each, and a leaderboard made from these.

from seqrec import benchmark
benchmark.run("ml-100k-leave-one-out-v1", models=["popularity", "gru4rec"])
"""

from seqrec.benchmark.results import Result, collect
from seqrec.benchmark.runner import run
from seqrec.experiment.protocol import Protocol, load_protocol, names

__all__ = ["Protocol", "Result", "collect", "load_protocol", "names", "run"]
