"""Amazon Beauty, 5-core, as S3-Rec and later papers use it: 22,363 users, 12,101 items, 198,502 events, order
only.

McAuley et al., SIGIR 2015 (the reviews); Zhou et al., CIKM 2020 (this file).
"""

from __future__ import annotations

from pathlib import Path

from seqrec import storage
from seqrec.data.interactions import Interactions
from seqrec.sources import s3rec_text
from seqrec.sources.fetch import find

URL = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/master/data/Beauty.txt"
MD5 = "cb03635343187f36526ed4ba48102b53"
TERMS = "Amazon reviews (J. McAuley, UC San Diego): research use; cite the papers"


def load(
    name: str = "beauty", data_dir: str | Path | None = None, cache: str | Path | None = None
) -> Interactions:
    """As ``seqrec.sources.load``."""
    found = find(name, ["Beauty.txt"], data_dir, cache, url=URL, md5=MD5)
    return found.attach(s3rec_text.read(storage.join(found.folder, "Beauty.txt")), TERMS)
