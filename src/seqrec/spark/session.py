"""Sessions of Spark, and the settings without which they fail late."""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from seqrec import errors
from seqrec.errors import SettingsError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA = "Java 17 or later, with JAVA_HOME naming its folder or java on the PATH"


@contextmanager
def session(master: str | None = None, partitions: int | None = None) -> Iterator[SparkSession]:
    """A session within the block: the one that runs here already, as in a notebook, or one of its own, which
    is stopped at the end.

    Args:
        master: the address of the cluster, such as ``local[4]`` or ``spark://host:7077``; None: as Spark
        itself is
            configured, ``local[*]`` where it is not.
        partitions: into which data is divided where it is sorted or joined; None: as Spark itself does.

    Raises:
        SettingsError: Spark or Java is not installed, another session than that of ``master`` runs here, or
        the
            cluster cannot be reached.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SettingsError(
            'engine: expected Spark, which is not installed here. pip install "seqrec[spark]".'
        ) from error
    # which seqrec hands nothing to
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    running = SparkSession.getActiveSession()
    if running is not None:
        there = running.conf.get("spark.master", "")
        if master is not None and master != there:
            raise SettingsError(
                f"engine.master: expected {there!r}, whose session runs in this process. Got {master!r}. "
                "Leave it "
                "out, or stop that session."
            )
        yield running
        return
    check_java()
    # the workers run the Python of this process, unless told otherwise: the default is another one's
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("seqrec")
    if master is not None:
        builder = builder.master(master)
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    if _is_here(master):
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    if partitions is not None:
        settings["spark.sql.shuffle.partitions"] = str(partitions)
    for name, value in settings.items():
        builder = builder.config(name, value)
    # what storage reads of the environment on this machine, it reads there
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        builder = builder.config(f"spark.executorEnv.{name}", os.environ[name])
    builder = builder.config("spark.executorEnv.OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    try:
        spark = builder.getOrCreate()
    except (PySparkException, RuntimeError, OSError) as error:
        raise SettingsError(
            f"engine.master: expected the address of a cluster that runs, and {JAVA}. Got {master!r} "
            f"({' '.join(str(error).split())[:300]})."
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


@contextmanager
def told() -> Iterator[None]:
    """Raises what a worker refused as if it had been refused here.

    Raises:
        SeqrecError: the first line of what it said.
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        said = re.search(r"seqrec\.errors\.(\w+Error): (.+)", str(error))
        kind = None if said is None else getattr(errors, said[1], None)
        if said is None or kind is None:
            raise
        raise kind(said[2]) from error


def _is_here(master: str | None) -> bool:
    """Whether the cluster is this machine alone, whose name may stand for any address."""
    return master is None or master.startswith(("local", "spark://127.0.0.1", "spark://localhost"))


def check_java() -> None:
    """Checks that there is a Java, without which a session fails with a message about a gateway.

    Raises:
        SettingsError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and shutil.which("java", path=os.path.join(home, "bin"))):
        raise SettingsError(f"engine: Spark needs {JAVA}. Got none.")
