"""Feature schemas: strict, and the origin's text files read as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqrec.errors import DataError, SettingsError
from seqrec.features.schema import FeatureSchema

SCHEMAS = Path(__file__).parents[2] / "conf" / "schema"
COLUMNS = [
    "label",
    "user_id",
    "gender",
    "age",
    "occupation",
    "zip",
    "movie_id",
    "recent_movie_ids",
    "genre",
    "last_movie",
    "last_genre",
]


def test_ids_only_is_the_default():
    schema = FeatureSchema()
    assert (schema.user, schema.sequence, schema.item) == ([], ["item_id"], ["item_id"])


def test_read(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text("user: [gender, 'gender # age']\nitem: [item_id, genres]\n")
    schema = FeatureSchema.read(path)
    assert (schema.user, schema.sequence, schema.item) == (
        ["gender", "gender#age"],
        ["item_id"],
        ["item_id", "genres"],
    )
    path.write_text("itme: [item_id]\n")
    with pytest.raises(SettingsError, match=r"schema\.yaml\.itme: unknown setting\. Did you mean 'item'"):
        FeatureSchema.read(path)
    with pytest.raises(DataError, match="no such file"):
        FeatureSchema.read(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"user": "gender"}, "features.user: expected a valid list"),
        ({"user": ["item_id"]}, r"features.user: expected columns of the users \(item_id is none\)"),
        ({"item": ["user_id"]}, r"features.item: expected columns of the items \(user_id is none\)"),
        ({"item": []}, "features.item: expected"),
        ({"sequence": []}, "features.sequence: expected"),
        ({"user": ["gender#"]}, "'gender#' is neither"),
        ({"user": ["age#age"]}, "'age#age' repeats one"),
        ({"user": ["gender#age", "age#gender"]}, "'age#gender' occurs twice"),
        ({"item": ["item_id#genres"]}, "item_id uncrossed"),
        ({"users": ["gender"]}, r"features.users: unknown setting\. Did you mean 'user'"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(SettingsError, match=message):
        FeatureSchema.of(wrong, "features")


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_schemas_are_valid(path):
    assert "item_id" in FeatureSchema.read(path).item


def origin(
    folder: Path, user: str = "user_id\n", sequence: str = "recent_movie_ids\n", item: str = "movie_id\n"
) -> FeatureSchema:
    columns = "".join(f"{n} {name}\n" for n, name in enumerate(COLUMNS))
    paths = [folder / f"{name}_schema" for name in ("column", "user_combine", "seq_combine", "item_combine")]
    for path, text in zip(paths, (columns, user, sequence, item)):
        path.write_text(text)
    return FeatureSchema.from_origin(*paths)


def test_the_origins_files(tmp_path):
    assert origin(tmp_path) == FeatureSchema(user=["user_id"], sequence=["item_id"], item=["item_id"])
    schema = origin(
        tmp_path,
        user="#\n# a licence stands here\n#\n\nuser_id\ngender#age\nzip\nlast_movie\n",
        sequence="recent_movie_ids\nlast_genre",
        item="movie_id\ngenre\n",
    )
    assert schema.user == ["user_id", "gender#age", "zip"]
    assert schema.sequence == ["item_id", "genre"]  # the last movie is one of the recent ones
    assert schema.item == ["item_id", "genre"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"user": "user_id\ngendre\n"},
            r"user_combine_schema, line 2: 'gendre' is no column of .*column_schema\. Did you mean 'genre'",
        ),
        ({"user": "gender#last_genre\n"}, "line 1: 'gender#last_genre' crosses a column of the history"),
        ({"item": "label\n"}, "item_combine_schema, line 1: the label"),
        ({"item": "gender\nuser_id\n"}, r"item_combine_schema\.item: expected columns of the items"),
    ],
)
def test_mistakes_in_the_origins_files(tmp_path, files, message):
    with pytest.raises(SettingsError, match=message):
        origin(tmp_path, **files)


def test_a_column_schema_that_is_none(tmp_path):
    origin(tmp_path)
    (tmp_path / "column_schema").write_text("0 label\nuser id 1\n")
    with pytest.raises(SettingsError, match="column_schema, line 2: expected the index and the name"):
        FeatureSchema.from_origin(*[tmp_path / "column_schema"] * 4)
