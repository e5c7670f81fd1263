"""Everything that changes while a training runs, and its checkpoint."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from seqrec import __version__, processes, storage
from seqrec.errors import SeqrecError, TrainingError
from seqrec.nn.encoder import Encoder
from seqrec.storage import version
from seqrec.training.optimizers import FTRL, AdagradMomentum
from seqrec.training.settings import TableSettings, TrainPlan

CHECKSUM = "sha256"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls them."""
FORMAT = 1
"""Of a checkpoint. The first ones had neither a format nor a version in them, and are still read."""


def make_optimizers(network: Encoder, s: TrainPlan, device: torch.device) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for all, ``{"optimizer": ..}``; with ``s.tables`` that of the embedding tables beside it,
    ``{"optimizer": .., "tables": ..}``.

    A group's ``initial_lr`` is its peak rate, which the schedule scales.
    """
    own = [
        m.weight
        for m in network.modules()
        if s.tables is not None and isinstance(m, nn.Embedding | nn.EmbeddingBag)
    ]
    rest = [p for p in network.parameters() if all(p is not table for table in own)]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if rest:
        optimizers["optimizer"] = _optimizer(rest, s, device)
    if own:
        assert s.tables is not None
        optimizers["tables"] = _optimizer_of_tables(own, s.tables)
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            if "lr" in group:
                group["initial_lr"] = group["lr"]
    return optimizers


def _optimizer(parameters: list[nn.Parameter], s: TrainPlan, device: torch.device) -> torch.optim.Optimizer:
    if s.optimizer == "adagrad":
        return AdagradMomentum(parameters, lr=s.learning_rate, momentum=s.momentum)
    decayed = {"params": [p for p in parameters if p.dim() > 1], "weight_decay": s.weight_decay}
    others = {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW(
        [decayed, others], lr=s.learning_rate, betas=(0.9, 0.98), fused=device.type in ("cpu", "cuda")
    )


def _optimizer_of_tables(tables: list[Tensor], t: TableSettings) -> torch.optim.Optimizer:
    if t.optimizer == "adagrad":
        return AdagradMomentum(tables, lr=t.learning_rate)
    return FTRL(tables, alpha=t.learning_rate, beta=t.beta, l1=t.l1, l2=t.l2)


class TrainingState:
    """Everything that changes while a training runs; what a checkpoint holds.

    Attributes:
        network, averaged: the weights that are trained, and those that are validated (the same object without
            averaging).
        best: the averaged weights of the best epoch so far.
        epoch, updates, done: finished epochs, updates, positions.
        seconds: wall clock spent, earlier parts of a resumed run included.
        curve: a dictionary an epoch: epoch, loss, the validation metric, positions_per_second, seconds.
        threads: that train; 0 as long as they are not chosen.
        start_value: the validation metric before the first update, where training begins with earlier
            weights.
    """

    def __init__(self, network: Encoder, s: TrainPlan, device: torch.device):
        self.network = network
        self.averaged = copy.deepcopy(network).requires_grad_(False) if s.average else network
        self.optimizers = make_optimizers(network, s, device)
        self.best: dict[str, Tensor] = {}
        self.best_value, self.best_epoch = -math.inf, 0
        self.epoch = self.updates = self.done = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        self.threads = 0
        self.start_value: float | None = None

    def set_rates(self, share: float) -> None:
        """Every rate that follows the schedule gets this share of its peak."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                if "lr" in group:
                    group["lr"] = share * group["initial_lr"]

    NUMBERS = (
        "epoch",
        "updates",
        "done",
        "seconds",
        "best_value",
        "best_epoch",
        "curve",
        "threads",
        "start_value",
    )

    def save(self, path: str | Path, fingerprint: str) -> None:
        """Writes a checkpoint; ``fingerprint`` says of which model, settings and data."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        if self.averaged is not self.network:
            tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        about = {name: getattr(self, name) for name in self.NUMBERS}
        about |= {"fingerprint": fingerprint, **version.stamp(FORMAT)}
        if not self.best:
            about["best_value"] = None
        # The largest numbers first, so that all lie where their size divides the place. Nothing is copied
        # (from a GPU, a tensor at a time): the weights and their optimizer's state may fill the memory.
        tensors = dict(sorted(tensors.items(), key=lambda named: (-named[1].element_size(), named[0])))
        header: dict[str, Any] = {"__metadata__": {"run": json.dumps(about)}}
        end = 0
        for name, tensor in tensors.items():
            begin, end = end, end + tensor.numel() * tensor.element_size()
            kind = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape)}
            header[name] = kind | {"data_offsets": [begin, end]}
        header["__metadata__"][CHECKSUM] = _checksum(header, map(_bytes, tensors.values()))
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # as safetensors aligns what follows
        with storage.open_write(path) as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for tensor in tensors.values():
                stream.write(_bytes(tensor))

    def load(self, path: str | Path, fingerprint: str, earlier: str | None = None) -> None:
        """Goes on from a checkpoint.

        Args:
            fingerprint: what the checkpoint must say.
            earlier: what it may say as well: of the same run with fewer epochs.

        Raises:
            TrainingError: no checkpoint, one of another model, settings, data or version, or one that does
                not fit the model.
        """

        def read() -> bytes:
            with storage.open_read(path) as stream:
                return stream.read()

        content = processes.from_first(read)  # the others may not see the folder
        try:
            header, body = _parts(content)
            about = json.loads(header["__metadata__"]["run"])
            tensors = safetensors.torch.load(content)
            checksum = header["__metadata__"].get(CHECKSUM)  # the first ones have none
            if checksum is not None and checksum != _checksum(header, [body]):
                raise ValueError("its checksum differs")
            if not isinstance(about, dict):
                raise ValueError("it does not say of what")
        except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
            raise TrainingError(
                f"{path}: not a checkpoint of seqrec, or a damaged one. Remove it to start from scratch."
            ) from error
        anew = "remove it to start from scratch (seqrec train --restart does)"
        if "format" in about:  # the first ones do not say
            version.check(about, (FORMAT,), path, anew, TrainingError)
        writer = f"seqrec {about['seqrec']}" if "seqrec" in about else "an older version of seqrec"
        advice = f"{anew[0].upper()}{anew[1:]}, or name another file."
        if about.get("fingerprint") not in (fingerprint, earlier or fingerprint):
            versions = f", or of another version: {writer} wrote it, and this is seqrec {__version__}"
            raise TrainingError(
                f"{path}: a checkpoint of another run (other settings, data or start)"
                f"{'' if about.get('seqrec') == __version__ else versions}. {advice}"
            )
        try:
            self._take(about, tensors)
        except SeqrecError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainingError(
                f"{path}: a checkpoint that does not fit the model: {writer} wrote it, and this is seqrec "
                f"{__version__}. {advice}"
            ) from error

    def _take(self, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes back the numbers and tensors that ``save`` wrote."""
        about = {"threads": 0, "start_value": None} | about  # older ones do not say
        for name in self.NUMBERS:
            kind = int | float | None if name.endswith("_value") else list if name == "curve" else int | float
            if not isinstance(about[name], kind) or isinstance(about[name], bool):
                raise TypeError(name)
            setattr(self, name, about[name])
        if self.best_value is None:
            self.best_value = -math.inf

        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}

        self.network.load_state_dict(part("network"))
        if self.averaged is not self.network:
            self.averaged.load_state_dict(part("averaged"))
        self.best = part("best")
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in part(name).items():
                index, of_parameter = key.split(".", 1)
                state.setdefault(int(index), {})[of_parameter] = value
            optimizer.load_state_dict(
                {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
            )


def _parts(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header of a safetensors file, and what follows it."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise ValueError("no header")
    return header, memoryview(content)[begin:]


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor of any shape, as it lies in the memory of the processor."""
    found: memoryview = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    return found


def _checksum(header: dict[str, Any], body: Iterable[memoryview]) -> str:
    """Of all but itself."""
    about = {k: v for k, v in header["__metadata__"].items() if k != CHECKSUM}
    found = hashlib.sha256(json.dumps({**header, "__metadata__": about}, sort_keys=True).encode())
    for part in body:
        found.update(part)
    return found.hexdigest()
