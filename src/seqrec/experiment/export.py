"""A trained model for other programs: what `seqrec export` writes."""

from __future__ import annotations

import io

import numpy as np

from seqrec import models, storage
from seqrec.errors import SettingsError
from seqrec.experiment import recommend

SUFFIXES = (".parquet", ".npz")


def to_onnx(source: str, folder: str, int8: bool = False, histories: bool = True) -> str:
    """Writes the model of a folder as an ONNX graph with its catalogue.

    Returns:
        what was written, and how it recommends, compared with the model.

    Raises:
        SettingsError: the model is not neural, or cannot be exported.
    """
    storage.check_folder(folder)
    model = models.load_model(source, "cpu")
    from seqrec.models.neural import NeuralModel

    if not isinstance(model, NeuralModel):
        raise SettingsError(
            f"export: expected a neural model (hrm, gru4rec, sasrec, fpmc). Got {model.name}, which has no "
            "network. Recommend with the model itself."
        )
    found = model.export_onnx(folder, int8, histories, recommend.filters_seen(source))
    of = f"of {found.histories:,} histories"
    if int8:
        return (
            f"{folder}: {model.name} in int8. {found.overlap:.1%} of the 20 best items {of} are those of the "
            "model itself."
        )
    return f"{folder}: {model.name}. The 20 best items {of} are those of the model itself."


def vectors(source: str, path: str) -> str:
    """Writes the item vectors of the model of a folder with the items' ids: the columns ``item_id``,
    ``vector`` and perhaps ``bias`` of a Parquet file, or the arrays ``ids``, ``vectors`` and perhaps ``bias``
    of an .npz file.

    Returns:
        what was written.

    Raises:
        SettingsError: a file of another type, or a model without item vectors.
    """
    storage.check_file(path, SUFFIXES)
    frame = models.load(source, "cpu").item_vectors()
    found = frame["vector"].to_numpy()
    if path.endswith(".parquet"):
        storage.write_parquet(frame, path)
    else:
        bias = {"bias": frame["bias"].to_numpy()} if "bias" in frame.columns else {}
        # of texts an array of fixed width: an array of objects would have to be unpickled
        ids = np.array(frame["item_id"].to_list())
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, ids=ids, vectors=found, **bias)
        with storage.open_write(path) as file:
            file.write(stream.getvalue())
    return f"{path}: {len(frame):,} vectors of {found.shape[1]} numbers."
