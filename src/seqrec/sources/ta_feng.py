"""Ta-Feng, the baskets of a grocery shop in Taiwan, November 2000 to February 2001.

The data set is ``baskets.json``, as "A Next Basket Recommendation Reality Check" prepared it: 13,858 users
with 3 to 50 days of shopping each, 11,997 items, 91,227 baskets, 571,933 purchases, order only.

The format ``ta-feng`` is the publisher's own table, as it is passed on today: a row a line of a receipt, with
the day. What a customer bought on a day is a basket.

    TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE
    11/1/2000,01104905  ,45-49,115,110411,4710199010372,2,24,30

Hsu, Chung, Huang: Mining Skewed and Sparse Transaction Data for Personalized Shopping Recommendation,
Machine Learning 57 (2004); Li et al., TOIS 2023 (this file).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from seqrec import storage
from seqrec.data.interactions import Interactions
from seqrec.sources import baskets_json
from seqrec.sources.fetch import find
from seqrec.sources.options import ReadOptions
from seqrec.sources.plain_tables import log_frame

URL = (
    "https://raw.githubusercontent.com/liming-7/A-Next-Basket-Recommendation-Reality-Check/main/"
    "mergeddataset/tafeng_merged.json"
)
MD5 = "2819fe48a63b78ac6ea08596e8e98090"
TERMS = "Ta-Feng (ACM RecSys wiki; C.-N. Hsu, Academia Sinica): research use; cite the papers"
FILES = ("baskets.json", "tafeng_merged.json")
COLUMNS = {"user_id": "CUSTOMER_ID", "item_id": "PRODUCT_ID", "timestamp": "TRANSACTION_DT"}


def load(
    name: str = "ta-feng", data_dir: str | Path | None = None, cache: str | Path | None = None
) -> Interactions:
    """As ``seqrec.sources.load``."""
    found = find(name, FILES, data_dir, cache, url=URL, md5=MD5)
    file = next(file for file in FILES if file in storage.names(found.folder))
    return found.attach(baskets_json.read(storage.join(found.folder, file)), TERMS)


def read(path: str | Path) -> Interactions:
    """Reads the publisher's table.

    Raises:
        DataError: as ``seqrec.read_log``.
    """
    options = ReadOptions(format="csv", columns=COLUMNS, time_format="month_first", delimiter=",")
    log = Interactions(log_frame([path], options, str(path)), source=str(path))
    basket = pl.concat_str("user_id", "timestamp", separator=" ").alias("basket_id")
    return replace(log, frame=log.frame.with_columns(basket))
