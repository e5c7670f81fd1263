import json

import pytest
from pydantic import Field

from seqrec import storage
from seqrec.errors import DataError
from seqrec.storage import marker


class About(marker.Schema):
    name: str
    count: int = Field(ge=0)
    file: marker.FileName = "a.npy"


def test_a_changed_file_is_refused_and_one_without_a_seal_is_not(tmp_path):
    path = tmp_path / "a.json"
    storage.write_json(marker.sealed({"b": [1, 2.5, None], "a": {"1": "x"}}), path)
    content = marker.read(path, "Write it again")
    assert content["a"] == {"1": "x"}
    path.write_text(json.dumps(content | {"b": 1}))
    with pytest.raises(DataError, match=r"was changed after it was written .* Write it again\."):
        marker.read(path, "Write it again")
    del content["digest"]
    path.write_text(json.dumps(content))
    assert marker.read(path, "") == content


@pytest.mark.parametrize(
    "text", ["", "[1]", "null", "1" * 5000, "[" * 100_000, "\udcff", '{"a": NaN, "digest": ""}']
)
def test_what_is_no_object_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as refused:
        marker.read(path, "Write it again")
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 3}, "name: expected a valid string. Got 3"),
        ({"count": "3"}, "count: expected a valid integer. Got '3'"),
        ({"count": -1}, "count: expected greater than or equal to 0. Got -1"),
        ({"file": "../../etc/passwd"}, "file: expected the plain name of a file in the same folder. Got"),
        ({"file": "/dev/zero"}, "file: expected the plain name of a file in the same folder. Got"),
        ({"file": ".."}, "file: expected the plain name"),
    ],
)
def test_a_value_that_is_none_is_named(change, said):
    with pytest.raises(DataError) as refused:
        marker.parse({"name": "a", "count": 1, "file": "b"} | change, About, "a.json", "Write it again")
    assert str(refused.value).startswith(f"a.json: {said}")


def test_a_missing_value_is_named():
    with pytest.raises(DataError, match="name: expected a value"):
        marker.parse({"count": 1}, About, "a.json", "Write it again")
