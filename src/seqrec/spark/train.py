"""Training and testing on Spark: its tasks are the processes that ``torchrun`` would start, and run the same
functions (``seqrec.processes``)."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from seqrec import processes, storage
from seqrec.errors import SeqrecError, SettingsError, TrainingError
from seqrec.experiment import judge
from seqrec.experiment import train as experiments
from seqrec.experiment.settings import RunSettings, read_run
from seqrec.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger("seqrec")

ATTEMPTS = 3
"""How often a training that loses a process without having finished an epoch since is begun."""


def train(spark: SparkSession, run: RunSettings, count: int = 1, restart: bool = False) -> Table:
    """As ``seqrec.experiment.train.train``, by so many processes on the cluster. Where one is lost, all go on
    from the last complete epoch.

    Args:
        spark: a running session. With ``local[n]`` the processes are started on this machine, by torchrun.
        run: whose log and output folder all machines reach by the same paths.
        count: processes, each of which takes a task of the cluster at the same time.
        restart: as there.

    Returns:
        the table of the test metrics.

    Raises:
        SettingsError, DataError, StorageError, TrainingError: as there; or a process was lost time and again.
    """
    run = run.model_copy(update={"engine": None})
    experiments.check_shared(run.check(), count)
    run.check_sources()
    folder = run.output.folder
    checkpoint = None if folder is None else storage.join(folder, "checkpoint.safetensors")
    content, left = _anywhere(run), ATTEMPTS
    while True:
        before = _state(checkpoint)
        try:
            return _table(_run(spark, count, run.fit.device, _train, content, restart))
        except TrainingError as error:
            if checkpoint is None or not isinstance(error.__cause__, RuntimeError):
                raise
            restart = False
            left = ATTEMPTS if _state(checkpoint) != before else left - 1
            if not left:
                raise
            log.warning("A process was lost. All go on from the last complete epoch.")


def evaluate(
    spark: SparkSession,
    folder: str,
    count: int = 1,
    topk_path: str | None = None,
    data_folder: str | None = None,
    filter_seen: bool | None = None,
    data_path: str | None = None,
) -> Table:
    """As ``seqrec.experiment.judge.evaluate``, by so many processes on the cluster, each of which ranks a
    share of the queries.

    Args:
        spark, count: as of ``train``.
        folder, topk_path, data_folder, filter_seen, data_path: as there.

    Raises:
        SettingsError, DataError, TrainingError: as there.
    """
    read_run(folder)
    places = [None if p is None else storage.absolute(p) for p in (folder, topk_path, data_folder, data_path)]
    folder_there, topk, data, log_path = places
    return _table(_run(spark, count, "auto", _evaluate, folder_there, topk, data, filter_seen, log_path))


def _anywhere(run: RunSettings) -> dict[str, Any]:
    """What a run says, for a process that is in another folder."""
    content = experiments.with_absolute_paths(run)
    for section, name in (("output", "folder"), ("evaluate", "topk")):
        if isinstance(path := content.get(section, {}).get(name), str):
            content[section] = {**content[section], name: storage.absolute(path)}
    if isinstance(content.get("features"), str):
        content["features"] = storage.absolute(content["features"])
    return content


def _state(checkpoint: str | None) -> bytes | None:
    """What tells one state of a checkpoint from another: its beginning, which has a checksum."""
    if checkpoint is None or not storage.exists(checkpoint):
        return None
    with storage.open_read(checkpoint) as stream:
        return stream.read(1 << 16)


def _run(spark: SparkSession, count: int, device: str, task: Any, *arguments: Any) -> dict[str, Any]:
    """What the first of so many processes returns."""
    from pyspark.ml.torch.distributor import TorchDistributor

    local = str(spark.conf.get("spark.master", "")).startswith("local")
    on_gpu = spark.conf.get("spark.task.resource.gpu.amount", "") not in ("", "0") and device != "cpu"
    if on_gpu is False and device.startswith("cuda"):
        raise SettingsError(
            "fit.device: expected tasks of the cluster with a GPU (spark.task.resource.gpu.amount=1). Got "
            "none. Say "
            "device: cpu, or configure the cluster."
        )
    # pyspark starts what is found by these names
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    distributor = TorchDistributor(num_processes=count, local_mode=local, use_gpu=on_gpu)
    try:
        found = distributor.run(partial(task, *arguments))
    except Exception as error:
        text = " ".join(str(error).split())
        raise TrainingError(
            f"engine: expected {count} processes that run to their end. One was lost. The same command goes "
            "on from "
            f"the last complete epoch, if the run has an output folder. ({text[-500:]})"
        ) from RuntimeError(text[-2000:])
    if not isinstance(found, dict):
        raise TrainingError(
            "engine: expected the result of the first process. Got none; see the workers' logs."
        )
    if "error" in found:
        kinds = {kind.__name__: kind for kind in _kinds(SeqrecError)}
        raise kinds.get(found["error"], SeqrecError)(found["message"])
    return found


def _kinds(kind: type[SeqrecError]) -> list[type[SeqrecError]]:
    return [kind, *(below for one in kind.__subclasses__() for below in _kinds(one))]


def _told(function: Any, *arguments: Any) -> dict[str, Any]:
    """What a function finds, as values that Spark carries. A mistake of the user is the same in all
    processes, and is told; a lost process is an error of the task."""
    try:
        table: Table = function(*arguments)
    except SeqrecError as error:
        if str(error).startswith(processes.LOST):
            raise
        return {"error": type(error).__name__, "message": str(error)}
    return {
        "title": table.title,
        "columns": list(table.columns),
        "rows": table.rows,
        "notes": list(table.notes),
    }


def _table(found: dict[str, Any]) -> Table:
    return Table(found["title"], found["columns"], found["rows"], notes=found["notes"])


def _train(content: dict[str, Any], restart: bool) -> dict[str, Any]:
    """Runs in each process."""
    return _told(lambda: experiments.train(RunSettings.of(content, ""), progress=False, restart=restart)[1])


def _evaluate(*arguments: Any) -> dict[str, Any]:
    """Runs in each process."""
    return _told(judge.evaluate, *arguments)
