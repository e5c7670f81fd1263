"""``seqrec index``."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec.errors import DataError


def index(
    model: Annotated[str, typer.Argument(help="Folder of a trained or exported model.")],
    recall: Annotated[
        float, typer.Option(help="Share of the exact 20 best items that the index should find.")
    ] = 0.95,
) -> None:
    """Index a model's items, so that recommend --approximate looks at some of them in place of all: for
    catalogues of hundreds of thousands of items or more.

    seqrec index chosen
    """
    from seqrec import models
    from seqrec.serving import index

    index.check(recall)
    folder = models.folder_of(model)
    if folder is None:
        raise DataError(f"{model}: expected the folder of a trained model. Train and save one first.")
    index.build(models.load(folder), recall).save(folder)
