import numpy as np

from seqrec import read_log, sources


def test_the_real_file(shared_data):
    log = sources.load("ta-feng", data_dir=shared_data)
    s = log.sequences()
    assert (s.events, s.users, len(s.item_catalogue)) == (571_933, 13_858, 11_997)
    assert len(np.unique(s.baskets)) == 91_227
    assert s.times is None
    assert "research" in log.terms


def test_what_a_customer_bought_on_a_day_is_a_basket(tmp_path):
    path = tmp_path / "ta_feng_all_months_merged.csv"
    path.write_text(
        "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE\n"
        + "".join(
            f"{day},{user},45-49,115,110411,{item},2,24,30\n"
            for day, user, item in (
                ("1/2/2001", "1", 5),
                ("12/31/2000", "1", 7),
                ("1/2/2001", "2", 5),
                ("1/2/2001", "1", 6),
            )
        )
    )
    s = read_log(path).sequences()
    assert s.item_catalogue.decode(s.items).to_list() == [7, 5, 6, 5]
    first, second, third, fourth = s.baskets.tolist()
    assert len({first, second, fourth}) == 3
    assert second == third
