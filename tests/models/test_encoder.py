"""What neural models share: the loss of a batch, settings, fallbacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from seqrec.data.catalogue import Catalogue
from seqrec.data.query import Query
from seqrec.errors import SeqrecError, SettingsError
from seqrec.evaluation import ranking
from seqrec.models.fpmc import FPMC
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.hrm import HRM
from seqrec.models.sasrec import SASRec
from seqrec.nn.batch import Batch, Inputs, Targets
from seqrec.nn.encoder import Encoder
from seqrec.splitting.last_n import last_n
from seqrec.splitting.leave_one_out import leave_one_out
from seqrec.splitting.split import Queries, Split
from seqrec.splitting.user_holdout import user_holdout
from seqrec.testing import sequences_of, small_log
from seqrec.training import losses
from seqrec.training.loss import GBCE, Loss, loss_of
from seqrec.training.negatives import NegativesSettings, Sampler
from seqrec.training.objective import Objective
from seqrec.training.own_items import OwnItems

ITEMS, WIDTH, N = 11, 4, 6


class Table(Encoder):
    """States are a parameter: nothing but the loss is under test."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.states = nn.Parameter(torch.randn(N, WIDTH, generator=generator))
        self.items = nn.Parameter(torch.randn(ITEMS, WIDTH, generator=generator))

    def batches(self, split, positions, rng):
        raise NotImplementedError

    def query_inputs(self, histories):
        raise NotImplementedError

    def encode(self, inputs: Inputs) -> Tensor:
        return self.states

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        return self.items if items is None else self.items[items]


TARGETS = torch.tensor([0, 3, 3, 7, 10, 1])
COUNTS = torch.arange(1, ITEMS + 1)


def batch(labels: Tensor | None = None) -> Batch:
    items, mask = torch.zeros(N, 1, dtype=torch.int64), torch.ones(N, 1, dtype=torch.bool)
    return Batch(Inputs(items, mask, torch.arange(N)), Targets(TARGETS, labels))


def sampler(**settings: Any) -> Sampler:
    return Sampler(NegativesSettings(**settings), COUNTS, 0, torch.device("cpu"))


def value_of(encoder: Encoder, batch: Batch, of_scores: Loss, sampler: Sampler) -> Tensor:
    """As the training loop has it."""
    objective = Objective(encoder, of_scores, sampler)
    ((drawn, negatives),) = objective.drawn([batch])
    return objective.loss(drawn, negatives)


SAMPLED = ("sampled_softmax", "bce", "gbce", "bpr", "bpr_max", "top1", "top1_max")


@pytest.mark.parametrize(
    "negatives",
    [
        {"count": 5},
        {"count": 5, "shared": False},
        {"count": 0, "in_batch": True},
        {"count": 4, "in_batch": True, "alpha": 0.5},
    ],
)
@pytest.mark.parametrize("logq", [0.0, 1.0])
@pytest.mark.parametrize("name", SAMPLED)
def test_every_loss_with_every_sampler(name: str, logq: float, negatives: dict[str, Any]):
    """Scores, their correction and the mask of accidental hits, one pair at a time."""
    encoder = Table()
    got = value_of(encoder, batch(), loss_of(name), sampler(logq=logq, **negatives))
    drawn = sampler(logq=logq, **negatives).sample(TARGETS)  # the same seed draws the same again
    items = drawn.items.expand(N, -1) if drawn.items.dim() == 1 else drawn.items
    log_q = drawn.log_q.expand(N, -1) if drawn.log_q.dim() == 1 else drawn.log_q
    positive, negative = torch.empty(N), torch.empty(items.shape)
    for i in range(N):
        positive[i] = encoder.states[i] @ encoder.items[TARGETS[i]] - logq * drawn.target_log_q[i]
        for m in range(items.shape[1]):
            hit = items[i, m] == TARGETS[i]
            negative[i, m] = (
                -torch.inf if hit else encoder.states[i] @ encoder.items[items[i, m]] - logq * log_q[i, m]
            )
    extra = {"gbce": {"items": ITEMS}}.get(name, {})
    torch.testing.assert_close(got, getattr(losses, name)(positive, negative, **extra))
    got.backward()
    assert torch.isfinite(encoder.states.grad).all()
    assert torch.isfinite(encoder.items.grad).all()


LISTS = [[4, 0], [3, 3, 8, 5, 3], [9, 5, 7, 10], [2, 1]]
EVENTS = torch.tensor([1, 5, 6, 9, 10, 12])  # which events the positions predict; the target of one was seen
OF_EVENTS = torch.tensor([0, 5, 3, 7, 10, 1])
SEEN = [{4}, {3, 8}, {3, 8, 5}, {9, 5}, {9, 5, 7}, {2}]


@pytest.mark.parametrize("labels", [None, torch.tensor([True, False, True, True, True, False])])
@pytest.mark.parametrize(
    "negatives",
    [
        {"count": 9},
        {"count": 9, "shared": False},
        {"count": 5, "in_batch": True, "mask_targets": False, "logq": 1.0},
    ],
)
@pytest.mark.parametrize("name", ["softmax", *SAMPLED])
def test_every_loss_leaves_out_what_was_seen(name: str, negatives: dict[str, Any], labels: Tensor | None):
    """As if the scores of seen items were -inf, one pair at a time; the target itself stays in."""
    sequences = sequences_of([np.array(x) for x in LISTS], ITEMS)
    none = Queries.at(sequences, np.empty(0, dtype=np.int64))
    split = Split(sequences, sequences.offsets[:-1], sequences.offsets[1:], none, none, {"name": "by hand"})
    encoder, of_scores = Table(), loss_of({"name": name, "seen": "mask"})
    cpu = torch.device("cpu")

    def drawing() -> Sampler:
        return Sampler(NegativesSettings(**negatives), COUNTS, 0, cpu, OwnItems(split, cpu))

    whole = batch()
    asked = replace(whole, targets=Targets(OF_EVENTS, labels, EVENTS))
    got = value_of(encoder, asked, of_scores, drawing())
    kept = torch.arange(N) if labels is None or of_scores.uses_disliked else labels.nonzero().squeeze(1)
    targets, states = OF_EVENTS[kept], encoder.states[kept]
    seen = [SEEN[i] for i in kept]
    if name == "softmax":
        scores = states @ encoder.items.T
        for i, target in enumerate(targets):
            scores[i, list(seen[i] - {int(target)})] = -torch.inf
        expected = torch.nn.functional.cross_entropy(scores, targets)
    else:
        again = drawing()
        drawn = again.sample(targets)
        logq = again.settings.logq
        items = drawn.items.expand(len(kept), -1)
        positive = (states * encoder.items[targets]).sum(1) - logq * drawn.target_log_q
        negative = (states[:, None] * encoder.items[items]).sum(2) - logq * drawn.log_q
        out = again.excluded(drawn, targets).expand(items.shape).clone()
        for i in range(len(kept)):
            for m, item in enumerate(items[i].tolist()):
                # of the draws that are the target itself the settings tell, seen or not
                out[i, m] |= item in seen[i] and (
                    item != targets[i] or not of_scores.scores_distinct(again.settings)
                )
        extra = {"gbce": {"items": ITEMS}, "bce": {"labels": labels}}.get(name, {})
        expected = getattr(losses, name)(positive, negative.masked_fill(out, -torch.inf), **extra)
    torch.testing.assert_close(got, expected)
    (ours,) = torch.autograd.grad(got, encoder.items, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, encoder.items)
    torch.testing.assert_close(ours, theirs)


def test_what_was_seen_is_left_out_only_where_recommending_does():
    with pytest.raises(SettingsError, match=r"loss\.seen: expected keep where train\.filter_seen is False"):
        SASRec(loss={"name": "softmax", "seen": "mask"}, train={"filter_seen": False})
    with pytest.raises(SettingsError, match=r"loss\.smoothing: expected 0 with seen: mask"):
        SASRec(loss={"name": "softmax", "seen": "mask", "smoothing": 0.1})
    unknown = value_of, Table(), batch(), loss_of({"name": "softmax", "seen": "mask"}), sampler()
    with pytest.raises(SettingsError, match=r"loss\.seen: mask needs batches that tell which event"):
        unknown[0](*unknown[1:])


def test_a_model_that_knows_no_seen_items_says_so_when_they_are_asked_for(caplog):
    loss, once = {"name": "softmax", "seen": "mask"}, {"epochs": 1}
    model = HRM(width=4, loss=loss, train=once).fit(small_log(), progress=False)
    history = [model.item_catalogue.ids[:2].to_list()]
    assert len(model.recommend(history, k=3)) == 3
    assert "seen: mask" not in caplog.text
    for _ in range(2):
        model.recommend(history, k=3, filter_seen=False)
    assert caplog.text.count("without the seen filter its lists are of little use") == 1


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["sampled_softmax", "bpr_max"])
def test_only_the_highest_negatives_count(name: str, shared: bool):
    """TRON: of seven draws the three that score highest, the target's own item never."""
    encoder, settings = Table(), {"count": 7, "shared": shared}
    got = value_of(encoder, batch(), loss_of(name), sampler(top=3, **settings))
    drawn = sampler(**settings).sample(TARGETS).items.expand(N, -1)
    negative = torch.einsum("nd,nmd->nm", encoder.states, encoder.items[drawn])
    negative = negative.masked_fill(drawn == TARGETS[:, None], -torch.inf)
    highest = torch.stack([row.sort(descending=True).values[:3] for row in negative])
    positive = (encoder.states * encoder.items[TARGETS]).sum(1)
    torch.testing.assert_close(got, getattr(losses, name)(positive, highest))
    as_many = value_of(encoder, batch(), loss_of(name), sampler(top=7, **settings))
    torch.testing.assert_close(as_many, getattr(losses, name)(positive, negative))


@pytest.mark.parametrize("name", [n for n in ("softmax", *SAMPLED) if n != "bce"])
def test_disliked_targets_are_not_trained_on(name: str):
    encoder = Table()
    labels = torch.tensor([True, False, True, True, False, True])
    value_of(encoder, batch(labels), loss_of(name), sampler(count=5)).backward()
    assert (encoder.states.grad.abs().sum(1) > 0).tolist() == labels.tolist()


def test_bce_pushes_disliked_targets_down():
    encoder = Table()
    labels = torch.tensor([True, False, True, True, False, True])
    value_of(encoder, batch(labels), loss_of("bce"), sampler(count=0, in_batch=True)).backward()
    assert encoder.states.grad.abs().sum(1).min() > 0


@pytest.mark.parametrize("name", ["softmax", *SAMPLED])
def test_a_batch_of_disliked_targets_only(name: str):
    encoder = Table()
    loss = value_of(encoder, batch(torch.zeros(N, dtype=torch.bool)), loss_of(name), sampler(count=5))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(encoder.states.grad).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["softmax", *SAMPLED])
def test_bfloat16_is_near(name: str, shared: bool):
    losses_and_gradients = []
    for bfloat16 in (False, True):
        encoder, draws = (
            Table(),
            sampler(count=5, alpha=0.5, in_batch=True, logq=float(name == "sampled_softmax"), shared=shared),
        )
        objective = Objective(encoder, loss_of(name), draws, bfloat16)
        ((drawn, negatives),) = objective.drawn([batch()])
        loss = objective.loss(drawn, negatives)
        assert loss.dtype == torch.float32
        loss.backward()
        losses_and_gradients.append((loss.item(), encoder.items.grad))
    (exact, d_exact), (near, d_near) = losses_and_gradients
    assert near == pytest.approx(exact, rel=0.02)
    assert (d_near - d_exact).norm() < 0.02 * d_exact.norm()


def test_training_with_ratings():
    """The origin's rule from end to end: disliked events stay in histories and are labelled 0."""
    sequences = small_log()
    ratings = np.random.default_rng(0).integers(1, 6, sequences.events).astype(np.float32)
    split = last_n(type(sequences)(**{**vars(sequences), "ratings": ratings}), 2, min_rating=2)
    for name in ("bce", "softmax"):
        model = HRM(
            width=8,
            loss=name,
            negatives={"count": 4},
            train={"epochs": 1, "batch_positions": 3},
        )
        model.fit(split)
        assert torch.isfinite(model.score(split.query(split.test))).all()


def test_groups_of_settings():
    model = SASRec(width=8, loss="bce", negatives={"count": 3}, train={"epochs": 2})
    assert (model.settings.width, model.loss.name, model.negatives.count, model.train.epochs) == (
        8,
        "bce",
        3,
        2,
    )
    assert SASRec(loss=GBCE(t=0.5)).loss.t == 0.5
    for wrong, message in [
        ({"widht": 8}, "sasrec.widht: unknown setting. Did you mean 'width'"),
        ({"loss": "bec"}, "loss.name: unknown loss 'bec'. Did you mean 'bce'"),
        (
            {"loss": {"name": "softmax", "smothing": 0.1}},
            "loss.smothing: unknown setting. Did you mean 'smoothing'",
        ),
        ({"negatives": {"cuont": 3}}, "Did you mean 'count'"),
        ({"train": {"epochs": 0}}, "train.epochs: expected greater than or equal to 1. Got 0"),
        ({"loss": "bce", "negatives": {"count": 0}}, "negatives.count: the loss bce needs negatives"),
        (
            {"loss": {"name": "bce", "t": 0.3}},
            "loss.t: expected no value with the loss bce, since only gbce has it; leave it out. Got 0.3.",
        ),
        (
            {"loss": {"smoothing": 0.1, "name": "bpr"}},
            "loss.smoothing: expected no value with the loss bpr, since only softmax has it",
        ),
        (
            {"loss": {"elu": 0.5}},
            "loss.elu: expected no value with the loss softmax, since only bpr_max has it",
        ),
        (
            {"loss": {"name": "top1_max", "regularisation": 0}},
            "loss.regularisation: expected no value with the loss top1_max",
        ),
        ({"train": {"momentum": 0.9}}, "train.momentum: expected no momentum with adamw"),
        ({"width": "wide"}, "sasrec.width: expected a valid integer"),
    ]:
        with pytest.raises(SettingsError, match=message.replace("(", r"\(")):
            SASRec(**wrong)


def test_an_untrained_model_has_no_network():
    with pytest.raises(SeqrecError, match="not trained"):
        SASRec().score(Query.from_lists([np.array([1])]))


def test_nothing_known_scores_by_popularity():
    split = leave_one_out(small_log())
    model = SASRec(width=8, length=10, train={"epochs": 1})
    model.fit(split)
    scores = model.score(Query.from_lists([np.empty(0, np.int32)]))
    assert scores[0].tolist() == split.item_counts.tolist()


@pytest.mark.parametrize(
    ("cls", "features"),
    [(HRM, None), (FPMC, None), (HRM, {"user": ["user_id", "group"]}), (SASRec, {"user": ["group"]})],
)
def test_users_without_a_target_in_training(tmp_path, cls, features):
    """Nobody scores them by a vector that was never trained, in evaluation or when recommending; what
    attributes tell of them counts."""
    sequences = small_log()
    users = Catalogue(
        sequences.user_catalogue.ids, pl.DataFrame({"group": ["a", "b"] * sequences.users})[: sequences.users]
    )
    split = user_holdout(replace(sequences, user_catalogue=users), validation_users=3, test_users=8, last=1)
    model = cls(width=8, features=features, train={"epochs": 2, "batch_positions": 8})
    model.fit(split, progress=False)
    model.save(tmp_path / "model")
    ranked = ranking.rank(model, split, split.test)
    held_out = split.sequences.user_catalogue.decode(ranked.users).to_list()
    # but for an item that nobody has ever taken, which is ranked, and not recommended
    lists = [[item for item in one if item not in model.unlearned][:5] for one in ranked.lists.tolist()]
    expected = split.sequences.item_catalogue.decode(np.array(lists).ravel()).to_list()
    for served in (model, cls.load(tmp_path / "model")):
        assert served.recommend(users=held_out, k=5)["item_id"].to_list() == expected
    histories = split.query(split.test)
    anonymous = model.score(
        replace(
            histories,
            users=None if features is None and cls is not FPMC else np.full(len(histories), -1, np.int32),
        )
    )
    assert torch.allclose(model.score(histories), anonymous) == (features is None)


@pytest.mark.parametrize(
    "model",
    [
        SASRec(),
        FPMC(loss={"name": "bpr_max", "elu": 0.5}),
        GRU4Rec(train={"optimizer": "adagrad", "momentum": 0.3}),
    ],
)
def test_a_configuration_makes_the_same_model_again(model):
    assert type(model)(**model.configuration()).configuration() == model.configuration()


def test_what_is_only_held_out_is_never_a_negative_by_popularity():
    """Items 8 and 9 are everyone's validation and test: to draw them would tell of the test."""
    split = leave_one_out(sequences_of([[*np.roll(np.arange(8), i), 8, 9] for i in range(20)], 10))
    drawn = []

    class Watched(HRM):
        def objective(self, network, sampler, bfloat16=False):
            drawn.append(sampler.draw((10_000,)))
            return super().objective(network, sampler, bfloat16)

    Watched(width=4, negatives={"alpha": 1.0}, train={"epochs": 1}).fit(split, progress=False)
    assert [items.unique().tolist() for items in drawn] == [list(range(8))]
