"""``seqrec export``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from seqrec.errors import SettingsError


class Kind(StrEnum):
    """What is exported."""

    onnx = "onnx"
    vectors = "vectors"


def export(
    model: Annotated[str, typer.Argument(help="Folder of a trained model, or of a run.")],
    output: Annotated[
        str, typer.Argument(help="Folder for onnx; for vectors a file, .parquet or .npz (of numpy).")
    ],
    format: Annotated[
        Kind,
        typer.Option(help="onnx: the network as a graph that runs without torch. vectors: of all items."),
    ] = Kind.onnx,
    int8: Annotated[
        bool, typer.Option("--int8", help="With onnx: round the network's weights to 8 bits.")
    ] = False,
    histories: Annotated[
        bool,
        typer.Option(
            "--histories/--no-histories", help="With onnx: whether it can recommend for the log's users."
        ),
    ] = True,
) -> None:
    """Export a trained model: as an ONNX graph with its catalogue, or the vectors of its items.

    seqrec export chosen exported
    """
    from seqrec.experiment import export as exports

    if format is Kind.onnx:
        print(exports.to_onnx(model, output, int8, histories))
        return
    for option, given in (("--int8", int8), ("--no-histories", not histories)):
        if given:
            raise SettingsError(f"{option}: goes with --format onnx alone. Leave it out.")
    print(exports.vectors(model, output))
