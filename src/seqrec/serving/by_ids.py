"""What is asked by raw ids, of a trained model, an exported one or one with an index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from seqrec.serving import recommender, similar
from seqrec.serving.embeds import Embeds


class ByIds:
    """The methods of whoever recommends that take and give raw ids.

    Attributes:
        reads_baskets: whether it reads which items of a history were taken together.
        reads_times: whether it reads when they were taken, and the moment that is asked about.
    """

    reads_baskets: bool = False
    reads_times: bool = False

    @property
    def needs_baskets(self) -> bool:
        """Whether it was trained on baskets and reads them, so that items alone do not say enough."""
        return False

    def recommend(
        self: Embeds,
        sequences: Any = None,
        *,
        users: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "raise",
        at: Any = None,
        times: Any = None,
        explain: bool = False,
    ) -> pl.DataFrame:
        """The best next items for anyone's history, or for users of the training data. See
        ``seqrec.serving.recommender.recommend``."""
        return recommender.recommend(
            self,
            sequences,
            users=users,
            k=k,
            filter_seen=filter_seen,
            allow=allow,
            deny=deny,
            on_unknown=on_unknown,
            at=at,
            times=times,
            explain=explain,
        )

    def item_vectors(self: Embeds) -> pl.DataFrame:
        """The items' vectors with their raw ids. See ``seqrec.serving.similar.item_vectors``."""
        return similar.item_vectors(self)

    def user_vectors(
        self: Embeds,
        sequences: Iterable[Iterable[Any]] | Mapping[Any, Iterable[Any]] | None = None,
        *,
        users: Iterable[Any] | None = None,
        on_unknown: str = "raise",
        at: Any = None,
        times: Any = None,
    ) -> pl.DataFrame:
        """The states after some histories. See ``seqrec.serving.similar.user_vectors``."""
        return similar.user_vectors(self, sequences, users=users, on_unknown=on_unknown, at=at, times=times)

    def similar_items(
        self: Embeds, items: Iterable[Any], k: int = 10, *, by: str = "cosine", on_unknown: str = "raise"
    ) -> pl.DataFrame:
        """The items most like each of some, by what the model has learned of them. See
        ``seqrec.serving.similar.similar_items``."""
        return similar.similar_items(self, items, k, by=by, on_unknown=on_unknown)
