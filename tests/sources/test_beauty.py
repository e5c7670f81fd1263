import pytest

from seqrec import sources


def test_the_real_file(shared_data):
    log = sources.load("beauty", data_dir=shared_data)
    s = log.sequences()
    assert (s.events, s.users, len(s.item_catalogue)) == (198_502, 22_363, 12_101)
    assert s.lengths.min() == 5
    assert s.times is None


@pytest.mark.parametrize("name", ["ml-20m", "ml-25m", "ml-32m", "ml-latest-small", "ml-10m"])
def test_movielens_of_other_sizes_load_from_their_folders(tmp_path, name):
    folder = tmp_path / ("ml-10M100K" if name == "ml-10m" else name)
    folder.mkdir()
    if name == "ml-10m":
        (folder / "ratings.dat").write_text("1::122::5::838985046\n1::185::4.5::838983525\n")
    else:
        (folder / "ratings.csv").write_text(
            "userId,movieId,rating,timestamp\n1,122,5.0,838985046\n1,185,4.5,838983525\n"
        )
    log = sources.load(name, data_dir=tmp_path)
    assert log.sequences().item_catalogue.decode(log.sequences().items).to_list() == [185, 122]
    assert "GroupLens" in log.terms
