"""Item-kNN: items that occur in the sequences of the same users as the items of the history.

    similarity(i, j) = |U_i n U_j| / (sqrt(|U_i| |U_j|) + shrinkage)   cosine of the items' columns of users
    score(j | history) = sum_i decay^(age of i) similarity(i, j)       over the ``neighbours`` nearest to i

U_i are the users whose training events include i. (Sarwar, Karypis, Konstan, Riedl: Item-based Collaborative
Filtering Recommendation Algorithms, WWW 2001, section 3.1.1; Deshpande, Karypis: Item-Based Top-N
Recommendation Algorithms, TOIS 2004, section 4.)

Differences from the papers: occurrences, not ratings; optional shrinkage; optional decay with the age of an
item in the history (0 for the last item, 1 for the one before ...), which makes an order-blind model follow
the user; of a user with very many items only the latest count; popularity, scaled far below any similarity,
orders the items that are similar to nothing in the history, and all of them after an empty one.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field

from seqrec.data.query import Query
from seqrec.data.sequences import Sequences
from seqrec.errors import SettingsError
from seqrec.models.model import Model
from seqrec.models.popularity import liked_events, shares
from seqrec.serving import artifact
from seqrec.settings.base import Settings
from seqrec.splitting.split import Split
from seqrec.topk import BestSoFar, TopK
from seqrec.training.options import FitOptions

PAIRS = 20_000_000  # co-occurrences counted at once while fitting
FAR_BELOW = 1e-6  # popularity shares times this break ties

# The sparse product below goes through torch's CSR layout inside, which says once that it is in beta; what it
# computes is checked by our tests.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


class ItemKNNSettings(Settings):
    """Hyperparameters of ``item_knn``."""

    neighbours: int = Field(200, ge=1, le=2**31 - 1)
    """Nearest items kept for each item."""
    shrinkage: float = Field(0.0, ge=0)
    """Takes similarities down that rest on few users."""
    decay: float = Field(0.9, gt=0, le=1)
    """Weight of an item in the history against the one after it; 1 weighs all alike."""
    recent: int = Field(200, ge=1, le=2**31 - 1)
    """Items of the history that are looked at, from its end."""
    most_items: int = Field(5_000, ge=1, le=2**31 - 1)
    """Items of a user that count in training, the latest: work grows with the square of their number, and a
    user with more (a guest account, a robot) says of none of them what it goes with."""


def who_had_what(s: Sequences, liked: np.ndarray, most_items: int) -> np.ndarray:
    """(pairs,) int64 ``user * items + item`` of the (events,) bool that are liked, ascending, each once; of a
    user with more items than ``most_items`` the latest."""
    catalogue = len(s.item_catalogue)
    pairs = np.unique(np.repeat(np.arange(s.users), s.lengths)[liked] * catalogue + s.items[liked])
    left_out = []
    for user in np.flatnonzero(np.bincount(pairs // catalogue) > most_items).tolist():
        events = slice(*s.offsets[user : user + 2])
        latest_first = s.items[events][liked[events]][::-1].astype(np.int64)
        first = np.sort(np.unique(latest_first, return_index=True)[1])
        left_out.append(user * catalogue + latest_first[first[most_items:]])
    return np.setdiff1d(pairs, np.concatenate(left_out), assume_unique=True) if left_out else pairs


def sparse(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> torch.Tensor:
    """A float32 matrix of these entries; the entries are in order of (row, column), and none comes twice."""
    at = torch.from_numpy(np.stack([rows, columns]).astype(np.int64))
    return torch.sparse_coo_tensor(
        at, torch.from_numpy(values.astype(np.float32)), shape, is_coalesced=True, check_invariants=False
    )


def nearest(
    users: np.ndarray, items: np.ndarray, counts: np.ndarray, s: ItemKNNSettings
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The nearest neighbours of a range of items at a time: (item, neighbour, similarity) in order of (item,
    neighbour).

    Args:
        users, items: (pairs,) who had what, each pair once, in order of (user, item).
        counts: (items,) users of each item.
    """
    lengths = np.bincount(users)
    of_users = sparse(users, items, np.ones(len(users)), (len(lengths), len(counts)))
    order = np.argsort(items, kind="stable")
    by_item, its_user = items[order], users[order]
    work = np.cumsum(np.bincount(by_item, weights=lengths[its_user], minlength=len(counts)))
    cuts = np.unique([0, *np.searchsorted(work, np.arange(PAIRS, work[-1], PAIRS)), len(counts)])
    for first, end in itertools.pairwise(cuts):
        part = slice(*np.searchsorted(by_item, [first, end]))
        common = torch.sparse.mm(
            sparse(
                by_item[part] - first,
                its_user[part],
                np.ones(part.stop - part.start),
                (end - first, len(lengths)),
            ),
            of_users,
        ).coalesce()
        (item, other), together = common.indices().numpy(), common.values().numpy()
        item = item + first
        item, other, together = (x[item != other] for x in (item, other, together))
        similarity = together / (np.sqrt(counts[item] * counts[other].astype(np.float64)) + s.shrinkage)
        best = np.lexsort((other, -similarity, item))
        place = np.arange(len(best)) - np.searchsorted(item[best], item[best])
        kept = np.sort(best[place < s.neighbours])
        yield item[kept], other[kept], similarity[kept]


class ItemKNN(Model):
    name = "item_knn"
    Settings = ItemKNNSettings

    def fit_split(self, split: Split, on: FitOptions) -> None:
        items, liked, catalogue = (
            split.sequences.items,
            liked_events(split),
            len(split.sequences.item_catalogue),
        )
        pairs = who_had_what(split.sequences, liked, self.settings.most_items)
        users_of = np.bincount(pairs % catalogue, minlength=catalogue)
        found = (
            list(nearest(pairs // catalogue, pairs % catalogue, users_of, self.settings))
            if len(pairs)
            else []
        )
        item, other, similarity = (
            (np.concatenate([np.empty(0, np.int64), *x]) for x in zip(*found))
            if found
            else (np.empty(0, np.int64),) * 3
        )
        self.load_state(
            {
                "item": item.astype(np.int32),
                "neighbour": other.astype(np.int32),
                "similarity": similarity.astype(np.float32),
                "popularity": shares(items[liked], catalogue),
            },
            catalogue,
            split.sequences.users,
        )

    def score(self, query: Query) -> torch.Tensor:
        events, mask = query.recent(self.settings.recent)
        recent = query.items(events, mask)
        row, age = np.nonzero(mask)
        items, n = recent[row, age], len(self.popularity)
        pairs, index = np.unique(row * n + items, return_inverse=True)
        weights = np.bincount(index, weights=self.settings.decay**age, minlength=len(pairs))
        weighted = sparse(pairs // n, pairs % n, weights, (len(query), n))
        similar: torch.Tensor = torch.sparse.mm(weighted, self.similarities).to_dense()
        return similar + FAR_BELOW * torch.from_numpy(self.popularity)

    def nearest(self, items: np.ndarray, k: int, by: str) -> TopK:
        """By the similarities themselves, of which each item has its largest.

        Raises:
            SettingsError: another measure than "cosine", of which these are a kind.
        """
        if by != "cosine":
            raise SettingsError(f"by: expected 'cosine', the only measure that {self.name} has. Got {by!r}.")
        best = BestSoFar(len(items), min(k, max(0, len(self.popularity) - 1)))
        rows = torch.sparse.mm(
            sparse(np.arange(len(items)), items, np.ones(len(items)), (len(items), len(self.popularity))),
            self.similarities,
        ).to_dense()
        best.add(rows.masked_fill_(rows <= 0, -torch.inf).numpy(), 0)
        return best.found()

    def state(self) -> dict[str, np.ndarray]:
        (item, neighbour), similarity = (
            self.similarities.indices().numpy(),
            self.similarities.values().numpy(),
        )
        return {
            "item": item.astype(np.int32),
            "neighbour": neighbour.astype(np.int32),
            "similarity": similarity,
            "popularity": self.popularity,
        }

    def load_state(self, state: dict[str, np.ndarray], items: int, users: int) -> None:
        self.popularity = artifact.floats_of(state, "popularity", items)
        item = artifact.indices_of(state, "item", items)
        neighbour = artifact.indices_of(state, "neighbour", items, len(item))
        similarity = artifact.floats_of(state, "similarity", len(item))
        self.similarities = sparse(item, neighbour, similarity, (items, items))
