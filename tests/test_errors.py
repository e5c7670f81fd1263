import pytest

from seqrec.errors import DataError, SettingsError, did_you_mean, masked, shown, some_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://key:s3cr3t@bucket/x: no such file.", "s3://***@bucket/x: no such file."),
        ("https://host/x?X-Amz-Signature=abc&a=1", "https://host/x?X-Amz-Signature=***&a=1"),
        ("https://host/x.csv?token=abc", "https://host/x.csv?token=***"),
        ("s3://bucket/a@b.csv", "s3://bucket/a@b.csv"),
        ("ann@example.org", "ann@example.org"),
    ],
)
def test_credentials_of_addresses_are_masked(text, expected):
    assert masked(text) == expected
    assert str(DataError(text)) == expected


def test_a_message_shows_no_content_at_length():
    assert len(shown("x" * 10_000)) < 120
    assert shown(10**5000) == "int too long to show"


def test_long_lists_of_names_are_cut():
    names = [f"n{i}" for i in range(500)]
    assert some_of(names[:30]) == ", ".join(names[:30])
    assert some_of(names).endswith("n29 ... (500 in all)")
    assert len(did_you_mean("zzzzzz", names)) < 300


def test_any_message_has_an_end():
    for kind in (DataError, SettingsError):
        text = str(kind(f"split.name: unknown split {'[' * 100_000}. Write another."))
        assert len(text) < 2100
        assert text.startswith("split.name: unknown split [[[")
        assert text.endswith("]. Write another.") or text.endswith("[. Write another.")
        assert "characters left out" in text
    assert str(SettingsError("two\nlines")) == "two\nlines"
