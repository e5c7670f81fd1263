import gzip

import polars as pl
import pytest

from seqrec import read_log, sources
from seqrec.errors import DataError

RATINGS = "1::10::5::978300760\n1::20::3::978302109\n2::10::3.5::978301968\n"


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


CASES = {
    "ml-100k": (
        "u.data",
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        [(196, 242, 881250949), (186, 302, 891717742)],
    ),
    "ml-1m": ("ratings.dat", RATINGS, [(1, 10, 978300760), (1, 20, 978302109), (2, 10, 978301968)]),
    "ml-20m": (
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n",
        [(1, 2, 1112486027), (1, 29, 1112484676)],
    ),
    "sasrec": ("Video.txt", "1 1\n1 2\n2 1\n", [(1, 1, None), (1, 2, None), (2, 1, None)]),
    "s3rec": ("Beauty.txt", "1 1 2\n2 1\n", [(1, 1, None), (1, 2, None), (2, 1, None)]),
    "recbole": (
        "x.inter",
        "user_id:token\titem_id:token\ttimestamp:float\nu1\t07\t5\nu2\t8\t6.5\n",
        [("u1", "07", 5), ("u2", "8", 6.5)],
    ),
    "gru4rec": (
        "yoochoose",
        "SessionId\tItemId\tTime\n7\t214\t1396861200.5\n7\t215\t1396861300\n",
        [(7, 214, 1396861200.5), (7, 215, 1396861300)],
    ),
    "baskets": (
        "baskets.json",
        '{"9": [["b", "a"], [], ["b"]],\n"10": [["c"]]}',
        [(9, "b", None), (9, "a", None), (9, "b", None), (10, "c", None)],
    ),
    "ta-feng": (
        "ta_feng_all_months_merged.csv",
        "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE\n"
        "11/1/2000,01104905  ,45-49,115,110411,4710199010372,2,24,30\n"
        "11/13/2000,01104905  ,45-49,115,110411,12,2,24,30\n",
        [("01104905", 4710199010372, 973036800), ("01104905", 12, 974073600)],
    ),
    "csv": ("log.txt", "user;item;time\na;b;1\n", [("a", "b", 1)]),
    "tsv": ("log.dat", "user\titem\ttime\na\tb\t1\n", [("a", "b", 1)]),
    "jsonl": ("log.json", '{"user": "a", "item": "b", "time": 1}\n', [("a", "b", 1)]),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("format", CASES)
def test_formats_are_detected_and_read(tmp_path, format, compress):
    name, text, expected = CASES[format]
    path = write(tmp_path, name + ".gz" * compress, gzip.compress(text.encode()) if compress else text)
    assert sources.detect(path) == format
    for log in (read_log(path), read_log(path, format=format)):
        frame = (
            log.frame if "timestamp" in log.frame.columns else log.frame.with_columns(timestamp=pl.lit(None))
        )
        assert frame.select("user_id", "item_id", "timestamp").rows() == expected


def test_parquet_is_told_by_its_content(tmp_path):
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(tmp_path / "log")
    assert sources.detect(tmp_path / "log") == "parquet"


@pytest.mark.parametrize(
    "lines",
    # one line a user, or one event a line? a third column of what? no header
    ["1 2\n3 4\n", "1 2 3\n2 3 4\n", "1,2\n1,3\n", "hello world\n"],
)
def test_ambiguous_files_are_not_guessed(tmp_path, lines):
    with pytest.raises(DataError, match="cannot tell the format from"):
        sources.detect(write(tmp_path, "log.txt", lines))


def test_folders(tmp_path):
    with pytest.raises(DataError, match="not a folder of a known data set"):
        sources.detect(tmp_path)
    write(tmp_path, "x.inter", CASES["recbole"][1])
    assert len(read_log(tmp_path)) == 2
    write(tmp_path, "ratings.csv", CASES["ml-20m"][1])
    assert sources.detect(tmp_path) == "ml-20m"


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("sasrec", "1 2\n1 2 3\n", r"row 2: expected 'user item'. Got '1 2 3'"),
        ("s3rec", "1 2\n1 3\n", "row 2: expected one line per user, .* Got a second line of the same user"),
        ("s3rec", "1\n", "a user without items"),
        ("sasrec", "\n", "the file is empty"),
        ("s3rec", "", "the file is empty"),
        ("ml-1m", "1::2::3\n", "row 1: expected 4 fields separated by '::'. Got 3"),
        ("ml-1m", "1::2::3::soon\n", "row 1, column 'timestamp'"),
        ("ml-100k", "1\t2\t3\n", "row 1: expected 4 fields"),
        ("baskets", '{"1": [["a", 1.5]]}', "user '1': expected whole numbers or texts as items. Got 1.5"),
        ("baskets", '{"1": ["a"]}', "user '1': expected a list of baskets, a list of items each"),
        ("baskets", '{"1": [["a"]], "1": [["b"]]}', "expected each user once. Got '1' twice"),
        ("baskets", "[[1]]", "expected one JSON object"),
        ("baskets", "{}", "the file is empty"),
        ("baskets", '{"1": ', "not readable as JSON"),
        ("recbole", "user_id\titem_id\n1\t2\n", "expected a type with each column"),
        (
            "gru4rec",
            "Session\tItemId\tTime\n1\t2\t3\n",
            r"no column 'SessionId' for user_id. .* Did you mean 'Session'\?",
        ),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, format, text, message):
    with pytest.raises(DataError, match=message):
        read_log(write(tmp_path, "log", text), format=format)


def test_formats_know_their_own_options(tmp_path):
    path = write(tmp_path, "ratings.dat", RATINGS)
    with pytest.raises(DataError, match="fixes delimiter"):
        read_log(path, delimiter=",")
    with pytest.raises(DataError, match="fixes its columns"):
        read_log(path, columns={"user_id": "x"})
    sessions = write(tmp_path, "s.tsv", "Session\tItemId\tTime\n1\t2\t3\n")
    assert len(read_log(sessions, format="gru4rec", columns={"user_id": "Session"})) == 1


def test_attributes_beside_the_files_of_movielens(tmp_path):
    write(tmp_path, "ratings.dat", RATINGS)
    write(
        tmp_path, "movies.dat", "10::Café, the (1999)::Comedy|Drama\n99::Never rated (2000)::War\n", "latin-1"
    )
    write(tmp_path, "users.dat", "1::F::1::10::02139\n2::M::56::16::70072\n")
    s = read_log(tmp_path).sequences()
    assert s.item_catalogue.attributes.rows() == [("Café, the (1999)", "Comedy|Drama"), (None, None)]
    assert s.user_catalogue.attributes["zip_code"].to_list() == ["02139", "70072"]
    csv = tmp_path / "csv"
    csv.mkdir()
    write(csv, "ratings.csv", CASES["ml-20m"][1])
    write(csv, "movies.csv", 'movieId,title,genres\n2,"Jumanji, ""the"" (1995)",Adventure|Children\n')
    assert read_log(csv).sequences().item_catalogue.attributes["title"].to_list() == [
        'Jumanji, "the" (1995)',
        None,
    ]
