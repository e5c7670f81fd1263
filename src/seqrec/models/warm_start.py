"""A network that begins with the weights of an earlier one, on a log that has grown since.

    earlier log     items a b c     users u v            row of a, b, c; of u, v
    grown log       items b d a c   users v w u    ->    b: b's  d: fresh  a: a's  c: c's;  v: v's  w: fresh

Rows are matched by raw ids, those of attribute values by column and value. Everything else is copied.
"""

from __future__ import annotations

import hashlib
import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from seqrec import storage
from seqrec.data.catalogue import UNKNOWN, Catalogue
from seqrec.data.sequences import Sequences
from seqrec.errors import SettingsError, shown
from seqrec.features import encoding
from seqrec.features.encoding import Features, Side
from seqrec.features.schema import FeatureSchema
from seqrec.nn.encoder import Encoder
from seqrec.serving import artifact
from seqrec.splitting.everything import everything
from seqrec.splitting.split import Queries, Split

log = logging.getLogger("seqrec")

Rows = dict[str, tuple[np.ndarray, np.ndarray]]
"""Kind of row -> (n,) rows of the earlier table, and (n,) where they are in the grown one."""
SAME = 0.99  # cosine above which an embedding is what it was
FEW = 3  # rows of the networks whose shapes are compared, and ids that messages show


class Trained(Protocol):
    """What is read of a model that is trained by gradient: attributes and methods as of ``NeuralModel``."""

    name: ClassVar[str]
    Network: ClassVar[Any]
    settings: Any
    features: FeatureSchema | None
    feature_values: Features | None
    item_catalogue: Catalogue | None
    sequences: Sequences | None
    known_stops: np.ndarray | None
    trained_users: np.ndarray | None
    trained_items: np.ndarray | None
    provenance: dict[str, Any]

    @property
    def network(self) -> Encoder:
        """Its network."""
        ...

    @classmethod
    def reference(cls) -> str:
        """What its class is called."""
        ...

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Self:
        """Opens a saved one."""
        ...

    def configuration(self) -> dict[str, Any]:
        """Its settings."""
        ...

    def numbering(self) -> dict[str, Catalogue | None]:
        """Its items and users."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """What it learned, named arrays of any shape, (...)."""
        ...


class Start:
    """The earlier model that a fit begins with.

    Attributes:
        model: the earlier one, as it was: fitting the same object again does not change it.
        name: its folder, or the name of the model, for messages.
    """

    def __init__(self, model: Trained, name: str):
        self.model, self.name = model, name

    @classmethod
    def of(cls, start: Any, kind: type[Any]) -> Start:
        """From a trained model, or its folder. Of the output folder of a run it is the tested model, not the
        one in ``serving``, which has seen what the test asks for.

        Args:
            kind: the class of the model that is to begin with it.

        Raises:
            SettingsError: neither; a model that is not trained; or one of a kind that is not trained by
                gradient.
            DataError: the folder holds no whole model of that class.
        """
        if isinstance(start, Start):
            return start
        if "train" not in kind.sections:
            raise SettingsError(
                f"fit.start: {kind.name} is not trained by gradient: it learns all of a log in seconds, and "
                "has no use for an earlier model. Leave it out (--from on the command line)."
            )
        name = None
        if isinstance(start, str | Path):
            storage.check_path(str(start), "fit.start")
            name, start = str(start), kind.load(artifact.tested(start), "cpu")
        if not hasattr(start, "fit_split"):
            raise SettingsError(
                "fit.start: expected a trained model, or the folder of one. Got "
                f"{shown(start)}. Leave it out to begin with random weights."
            )
        if start.item_catalogue is None:
            raise SettingsError(f"fit.start: the {start.name} is not trained. Call its fit first.")
        kept = start.__class__.__new__(start.__class__)
        kept.__dict__.update(start.__dict__)
        return cls(kept, name or f"the earlier {start.name}")

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits over all that it has learned, and of which items and users."""
        found = hashlib.sha256(json.dumps(self.model.configuration(), sort_keys=True).encode())
        for catalogue in self.model.numbering().values():
            found.update(b"" if catalogue is None else catalogue.digest.encode())
        for name, array in sorted(self.model.state().items()):
            found.update(f"{name} {array.dtype} {array.shape} ".encode())
            found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        return found.hexdigest()[:16]

    def check(self, model: Any) -> None:
        """Checks that a model can take the weights.

        Raises:
            SettingsError: it is another model, or has other settings of the network or features; names the
                first.
        """
        if model.reference() != self.model.reference():
            raise SettingsError(
                f"fit.start: {self.name} is a {self.model.reference()}. Got the model {model.reference()}, "
                "which cannot take its weights. Name a model of the same kind, or leave it out."
            )
        for of in (self.model, model):
            if getattr(of, "item_table", None) is not None:
                raise SettingsError(
                    "fit.start: expected a model without item_table, whose codes come from one log and fit "
                    "no other. Got one with it. Leave fit.start out."
                )
        there, here = self.model.settings.model_dump(mode="json"), model.settings.model_dump(mode="json")
        pairs = {f"model.{key}": (there.get(key), here.get(key)) for key in {**there, **here}}
        for side in ("user", "sequence", "item"):
            pairs[f"features.{side}"] = (
                getattr(self.model.features, side, None),
                getattr(model.features, side, None),
            )
        for key, (earlier, ours) in pairs.items():
            if earlier != ours:
                raise SettingsError(
                    f"fit.start: {self.name} has {key} {shown(earlier)}. Got {shown(ours)}. Its weights fit "
                    "a network of the same settings only: take the same, or leave fit.start out."
                )

    @property
    def users(self) -> Catalogue | None:
        """The earlier users; None if the model was saved without them."""
        return None if self.model.sequences is None else self.model.sequences.user_catalogue

    def trained_users(self, users: Catalogue) -> np.ndarray:
        """(users,) bool, those of a log whose vectors the earlier training has moved."""
        found = np.zeros(len(users), dtype=bool)
        if self.users is not None:
            before, after = matched(self.users, users)
            trained = self.model.trained_users
            found[after] = True if trained is None else trained[before]
        return found

    def trained_items(self, items: Catalogue) -> np.ndarray:
        """(items,) bool, those of a log that the earlier training has seen taken."""
        found = np.zeros(len(items), dtype=bool)
        assert self.model.item_catalogue is not None
        before, after = matched(self.model.item_catalogue, items)
        trained = self.model.trained_items
        found[after] = True if trained is None else trained[before]
        return found

    @cached_property
    def trained_stops(self) -> np.ndarray | None:
        """(users,) where the events of each earlier user end that the earlier model was trained on, before
        what it was validated on; None if it was saved without histories.

        A model does not keep its split, but its name and how many events trained: which users validated
        follows from the one of ``everything``; others hold out as many of each user.
        """
        sequences, stops = self.model.sequences, self.model.known_stops
        if sequences is None or stops is None:
            return None
        about = self.model.provenance.get("split") or {}
        if about.get("name") == "everything":
            return everything(sequences, about.get("seed", 0)).train_stops
        starts = sequences.offsets[:-1]
        held_out = int((stops - starts).sum()) - int(self.model.provenance.get("train_events", 0))
        trained: np.ndarray = np.maximum(starts, stops - -(-held_out // max(1, len(stops))))
        return trained

    def known(self, split: Split, queries: Queries, trained: bool = False) -> np.ndarray:
        """(queries,) bool, those that ask for an event which the earlier model knew already.

        Where what it knew of a user is how their sequence begins, places are compared; where that has changed
        (old events are gone, say), items.

        Args:
            trained: only of what it was trained on, not of what it was validated on.
        """
        sequences, stops = self.model.sequences, self.model.known_stops
        found = np.zeros(len(queries), dtype=bool)
        if sequences is None or stops is None or not len(queries):
            return found
        if trained and self.trained_stops is not None:
            stops = self.trained_stops
        s = split.sequences
        number = sequences.user_catalogue.encode(s.user_catalogue.ids)[queries.users]
        items = s.item_catalogue.encode(sequences.item_catalogue.ids)[sequences.items]
        for query in np.flatnonzero(number != UNKNOWN):
            begin, target = s.offsets[queries.users[query]], queries.targets[queries.first_targets[query]]
            then = items[sequences.offsets[number[query]] : stops[number[query]]]
            if np.array_equal(then, s.items[begin : begin + len(then)]):
                found[query] = target - begin < len(then)
            else:
                found[query] = s.items[target] in then
        return found

    def to_choose_on(self, split: Split) -> Queries:
        """The validation queries, without those that ask for what the earlier model was trained on: they
        would find the start better than it is."""
        queries = split.validation
        known = self.known(split, queries, trained=True)
        if not known.any():
            return queries
        log.warning(
            "%s was trained on what %s of %s validation queries ask for: epochs are chosen on the others.",
            self.name,
            f"{known.sum():,}",
            f"{len(queries):,}",
        )
        return queries.select(~known)

    def give(self, network: nn.Module, model: Trained, split: Split) -> dict[str, Any]:
        """Puts the earlier weights into a new network, which lies on the CPU.

        Returns:
            what became of the rows, as JSON values: of ``items`` and ``users`` (where the network has their
            rows) how many were ``kept``, are ``new`` and are ``gone``.
        Raises:
            SettingsError: the rows of users, or of attribute values, cannot be told any more, no item of the
                earlier model is in the log, embeddings are of another encoder, or a weight has another shape.
        """
        s, features = split.sequences, model.feature_values
        axes = axes_of(model, features)
        kinds = {kind for of in axes.values() for kind in of if kind}
        assert self.model.item_catalogue is not None
        catalogues = {"items": (self.model.item_catalogue, s.item_catalogue)}
        if kinds & {"users", "values of users"}:
            if self.users is None:
                raise SettingsError(
                    f"fit.start: {self.name} was saved without histories, so whose its users' vectors are "
                    "is not known. Save it with histories, or leave fit.start out."
                )
            catalogues["users"] = (self.users, s.user_catalogue)
        rows: Rows = {kind: matched(*pair) for kind, pair in catalogues.items()}
        if not len(rows["items"][0]):
            there, here = (c.ids.head(FEW).to_list() for c in catalogues["items"])
            raise SettingsError(
                f"fit.start: none of the items of {self.name} is in the log. It has {shown(there)} and so "
                f"on; got {shown(here)}. Give the log with the same ids (as text, or as numbers)."
            )
        if features is not None:
            self._check_embeddings(features, rows)
            rows |= self._rows_of_values(model, split, kinds)
        weights, fresh = self.model.network.state_dict(), network.state_dict()
        taken = {
            name: grown(weights.get(name), tensor, axes[name], rows, f"fit.start: {self.name}: {name}")
            for name, tensor in fresh.items()
            if name in axes
        }
        network.load_state_dict(fresh | taken)
        counts = {
            kind: {"kept": len(rows[kind][0]), "new": len(now) - len(rows[kind][0])}
            | {"gone": len(then) - len(rows[kind][0])}
            for kind, (then, now) in catalogues.items()
            if kind in kinds
        }
        said = (
            f"{of['kept']:,} {kind} keep their vectors, {of['new']:,} are new"
            + (f", {of['gone']:,} are gone" if of["gone"] else "")
            for kind, of in counts.items()
        )
        log.info("%s begins with %s: %s.", model.name, self.name, "; ".join(said) or "the same weights")
        return counts

    def _check_embeddings(self, features: Features, rows: Rows) -> None:
        """Refuses embeddings that are not what the earlier model's maps were learned for: most of what both
        have has changed.

        Raises:
            SettingsError: there is such a column.
        """
        then, now = ({} if one is None else one.arrays() for one in (self.model.feature_values, features))
        for name in now:
            kind, is_embedding, column = name.partition(".embeddings.")
            if not is_embedding or name not in then or kind not in rows:
                continue
            (before, after), (a, b) = rows[kind], (then[name], now[name])
            alike = a.shape[1] == b.shape[1]
            if alike:
                both = a[before].any(1) & b[after].any(1)
                changed = (np.einsum("nd,nd->n", a[before], b[after]) < SAME)[both]
                alike = not len(changed) or changed.mean() <= 0.5
            if not alike:
                raise SettingsError(
                    f"fit.start: expected the embeddings that {self.name} was trained with in column "
                    f"{column!r} of the {kind}. Got others, of another encoder: what was learned of those "
                    "says nothing of these. Embed with the same one (seqrec embed --fit-on), or leave "
                    "fit.start out."
                )

    def _rows_of_values(self, model: Trained, split: Split, kinds: set[str]) -> Rows:
        """The rows of attribute values, matched by column and value."""
        assert model.features is not None
        assert self.model.item_catalogue is not None
        s = split.sequences
        pairs = {"items": (self.model.item_catalogue, s.item_catalogue)}
        if self.users is not None:
            pairs["users"] = (self.users, s.user_catalogue)
        rows: Rows = {}
        for side, (then, now) in pairs.items():
            if f"values of {side}" not in kinds:
                continue
            before, after = (encoding.values_of(model.features, side, one) for one in (then, now))
            stored = self.model.feature_values
            of = (
                ()
                if stored is None
                else ((stored.user,) if side == "users" else (stored.item, stored.sequence))
            )
            if len(before) != max((one.values for one in of), default=1) - 1:
                raise SettingsError(
                    f"fit.start: which attribute values the {side} of {self.name} had cannot be told any "
                    "more. Leave fit.start out."
                )
            place = {value: n for n, value in enumerate(after, 1)}
            at = [(n, place[value]) for n, value in enumerate(before, 1) if value in place]
            both = np.array([(0, 0), *at], dtype=np.int64).T  # 0: none
            rows[f"values of {side}"] = both[0], both[1]
        return rows


def matched(then: Catalogue, now: Catalogue) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rows of the ids that two catalogues share: in the first, and in the second."""
    at = now.encode(then.ids)
    before = np.flatnonzero(at != UNKNOWN)
    return before, at[before].astype(np.int64)


def axes_of(model: Trained, features: Features | None) -> dict[str, tuple[str | None, ...]]:
    """Of each weight of a model's network which dimension counts what: ``items``, ``users``, ``values of
    items`` or ``values of users``; None for what does not depend on the log.

    It is seen in the shapes of small networks, of which one has an item more, one a user more, and so on.
    """

    def shapes(**more: int) -> dict[str, tuple[int, ...]]:
        items, users = FEW + more.get("items", 0), FEW + more.get("users", 0)
        arguments = [model.settings, items, users]
        if features is not None:
            arguments.append(_small(features, items, users, more))
        with torch.random.fork_rng(devices=[]):
            state = model.Network(*arguments).state_dict()
        return {k: tuple(v.shape) for k, v in state.items() if not k.endswith("_extra_state")}

    plain = shapes()
    axes: dict[str, list[str | None]] = {name: [None] * len(shape) for name, shape in plain.items()}
    kinds = ["items", "users", *(["values of items", "values of users"] if features is not None else [])]
    for kind in kinds:
        for name, shape in shapes(**{kind: 1}).items():
            for dimension, (one, other) in enumerate(zip(plain[name], shape, strict=True)):
                if one != other:
                    axes[name][dimension] = kind
    return {name: tuple(of) for name, of in axes.items()}


def _small(features: Features, items: int, users: int, more: dict[str, int]) -> Features:
    """The same features of a few rows, with so many more values."""

    def side(of: Side, rows: int, kind: str) -> Side:
        def cut(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else np.resize(array, (rows, array.shape[1]))

        values = of.values + more.get(f"values of {kind}", 0)
        embeddings = {name: np.resize(array, (rows, array.shape[1])) for name, array in of.embeddings.items()}
        return Side(of.ids, cut(of.index), cut(of.weight), values, embeddings, of.drop_ids)

    return Features(
        side(features.user, users, "users"),
        side(features.sequence, items, "items"),
        side(features.item, items, "items"),
        features.item_is_sequence,
    )


def grown(
    earlier: Tensor | None, fresh: Tensor, axes: tuple[str | None, ...], rows: Rows, name: str
) -> Tensor:
    """A weight with what was learned before in its rows, and fresh values in those that are new.

    Args:
        earlier, fresh: weights of as many dimensions, (rows, width) say; sizes may differ where ``axes`` says
            of what.
        axes: as ``axes_of`` gives them.
        rows: of each kind of row in ``axes``, where the earlier ones go.
        name: for messages.

    Raises:
        SettingsError: there is no such weight, or one of another shape.
    """
    if (
        earlier is None
        or [n for n, a in zip(earlier.shape, axes, strict=False) if not a]
        != [n for n, a in zip(fresh.shape, axes, strict=False) if not a]
        or earlier.dim() != fresh.dim()
    ):
        raise SettingsError(
            f"{name}: expected a weight of the shape {tuple(fresh.shape)}, but for rows. Got "
            f"{None if earlier is None else tuple(earlier.shape)}. Leave fit.start out."
        )
    counted = [(dimension, kind) for dimension, kind in enumerate(axes) if kind is not None]
    found, taken = fresh.clone(), earlier.detach().to(fresh)
    if not counted:
        return taken
    for dimension, kind in counted:
        taken = taken.index_select(dimension, torch.from_numpy(rows[kind][0]))
    if len(counted) == 1:
        ((dimension, kind),) = counted
        return found.index_copy_(dimension, torch.from_numpy(rows[kind][1]), taken)
    places = [
        np.arange(size) if kind is None else rows[kind][1]
        for size, kind in zip(fresh.shape, axes, strict=True)
    ]
    found[tuple(torch.from_numpy(one) for one in np.ix_(*places))] = taken
    return found
