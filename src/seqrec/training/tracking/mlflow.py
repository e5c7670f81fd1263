"""MLflow: a run in the experiment ``seqrec``, or the one that ``MLFLOW_EXPERIMENT_NAME`` names, on the server
or in the folder that ``MLFLOW_TRACKING_URI`` names.

A training that was stopped goes on in its run, which it finds by its fingerprint.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from seqrec.errors import TrainingError
from seqrec.training.tracking import Tracker, Tracking, flat

log = logging.getLogger("seqrec")

EXPERIMENT = "seqrec"
LONGEST = 500
"""Characters of a parameter's value, the rest of which MLflow would refuse."""
FINGERPRINT = "seqrec.fingerprint"


class _Run:
    """A run, as long as MLflow takes what it is told: a training does not end because a server does."""

    def __init__(self, client: MlflowClient, run_id: str):
        self.client, self.run_id, self.lost = client, run_id, False

    def values(self, step: int, found: Mapping[str, float]) -> None:
        now = round(1000 * time.time())
        # a name may hold no @: ndcg@10 is ndcg_10
        metrics = [Metric(name.replace("@", "_"), value, now, step) for name, value in found.items()]
        self.tell(lambda: self.client.log_batch(self.run_id, metrics=metrics))

    def end(self, status: str) -> None:
        self.tell(lambda: self.client.set_terminated(self.run_id, status))

    def tell(self, what: Callable[[], object]) -> None:
        if self.lost:
            return
        try:
            what()
        except MlflowException as error:
            self.lost = True
            log.warning(
                "fit.track: mlflow is told nothing more of this training, which goes on: %s",
                error.message.splitlines()[0],
            )


def _run(client: MlflowClient, tracking: Tracking, step: int) -> str:
    """The run of a training: the one that it has begun, or a new one with its settings."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    known = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if known is None else known.experiment_id
    begun = f"tags.`{FINGERPRINT}` = '{tracking.fingerprint}'"
    earlier = client.search_runs([experiment], begun, max_results=1) if step else []
    if earlier:
        client.update_run(earlier[0].info.run_id, status="RUNNING")
        return str(earlier[0].info.run_id)
    run_id = str(client.create_run(experiment, run_name=tracking.name).info.run_id)
    params = [Param(key, str(value)[:LONGEST]) for key, value in flat(tracking.settings).items()]
    for first in range(0, len(params), 100):  # MLflow takes so many at once
        client.log_batch(run_id, params=params[first : first + 100])
    client.log_batch(run_id, tags=[RunTag(FINGERPRINT, tracking.fingerprint)])
    return run_id


@contextmanager
def begin(tracking: Tracking, step: int) -> Iterator[Tracker]:
    """The run of a training, which ends as finished, or as failed or killed.

    Raises:
        TrainingError: MLflow cannot be reached, or refuses.
    """
    try:
        client = MlflowClient()
        run = _Run(client, _run(client, tracking, step))
    except MlflowException as error:
        raise TrainingError(
            f"fit.track: mlflow could not begin a run: {error.message.splitlines()[0]} Check "
            "MLFLOW_TRACKING_URI, or leave out fit.track."
        ) from error
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.end(status)
