"""``seqrec serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from seqrec.errors import SettingsError


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Folders of trained models, of runs, or of models exported to ONNX; name=FOLDER names one."
        ),
    ],
    share: Annotated[
        list[str] | None,
        typer.Option("--share", help="The share of the users that a model answers, as name=0.9. Repeatable."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 for all addresses.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Which port; 0 for a free one.")] = 8000,
    events: Annotated[
        str | None, typer.Option(help="Keep what users did (/v1/events) in this local folder.")
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(help="A file with the token that requests must bring; or set SEQREC_TOKEN."),
    ] = None,
    seen: Annotated[
        bool | None,
        typer.Option(
            "--seen/--unseen",
            help="Whether to recommend items of the history if a request says nothing. By default as the "
            "run's test did; else not.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A limit or habit, as max_k=100 (seqrec settings serve lists them). Repeatable."
        ),
    ] = None,
) -> None:
    """Serve models over HTTP, with a page to try them, until it is told to stop.

    seqrec serve chosen --port 8000
    """
    from seqrec.serving.settings import ServiceSettings
    from seqrec.settings import yaml_file

    content: dict[str, object] = {}
    for pair in set_ or ():
        yaml_file.apply_override(content, pair)
    settings = ServiceSettings.of(content, "serve")
    named = [_named(model) for model in models]
    shares = _shares([name for name, _ in named], share)
    token = _token(token_file)
    try:
        from seqrec.service import server, telemetry
    except ModuleNotFoundError as error:
        raise SettingsError(
            f'serve: needs {error.name}, which is not installed. Run: pip install "seqrec[serve]"'
        ) from error
    from seqrec.experiment.recommend import filters_seen
    from seqrec.service.registry import Source

    telemetry.log_json()
    sources = [
        Source(name, folder, part, filters_seen(folder) if seen is None else not seen)
        for (name, folder), part in zip(named, shares, strict=True)
    ]
    server.serve(sources, settings, host, port, events, token)


def _named(model: str) -> tuple[str, str]:
    name, equals, folder = model.partition("=")
    if equals and name.replace("-", "").replace("_", "").isalnum():
        return name, folder
    parts = [part for part in model.split("/") if part]
    while len(parts) > 1 and parts[-1] in ("model", "serving"):
        parts.pop()
    return (parts[-1] if parts else model), model


def _shares(names: list[str], given: list[str] | None) -> list[float]:
    shares: dict[str, float] = {}
    for pair in given or ():
        name, _, value = pair.partition("=")
        try:
            shares[name] = float(value)
        except ValueError:
            raise SettingsError(f"--share: expected name=0.5. Got {pair!r}.") from None
        if name not in names or not 0 <= shares[name] <= 1:
            raise SettingsError(f"--share: expected a part from 0 to 1 of one of {names}. Got {pair!r}.")
    others = [name for name in names if name not in shares]
    left = 1 - sum(shares.values())
    if left < -1e-9 or (not others and left > 1e-9):
        raise SettingsError(f"--share: expected parts that sum to 1. Got {given}.")
    return [shares.get(name, max(0.0, left) / len(others) if others else 0.0) for name in names]


def _token(path: str | None) -> str | None:
    if path is None:
        return os.environ.get("SEQREC_TOKEN") or None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--token-file: {path} cannot be read ({error}).") from error
    if not token:
        raise SettingsError(f"--token-file: expected a token. Got an empty file, {path}.")
    return token
