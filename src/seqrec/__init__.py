"""Sequential recommendation: from a log to a benchmark table and recommendations."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Imported on first use, so that `import seqrec` and the command line start at once.
_PUBLIC = {
    "Interactions": "seqrec.data.interactions",
    "Sequences": "seqrec.data.sequences",
    "read_log": "seqrec.sources.reading",
    "Split": "seqrec.splitting",
    "SplitSettings": "seqrec.splitting",
    "Popularity": "seqrec.models.popularity",
    "RecentPopularity": "seqrec.models.recent_popularity",
    "Markov": "seqrec.models.markov",
    "ItemKNN": "seqrec.models.item_knn",
    "VSKNN": "seqrec.models.vsknn",
    "FPMC": "seqrec.models.fpmc",
    "HRM": "seqrec.models.hrm",
    "GRU4Rec": "seqrec.models.gru4rec",
    "SASRec": "seqrec.models.sasrec",
    "LRURec": "seqrec.models.lrurec",
    "ESASRec": "seqrec.models.esasrec",
    "HSTU": "seqrec.models.hstu",
    "FuXi": "seqrec.models.fuxi",
    "FMLP": "seqrec.models.fmlp",
    "BSARec": "seqrec.models.bsarec",
    "BERT4Rec": "seqrec.models.bert4rec",
    "NARM": "seqrec.models.narm",
    "Caser": "seqrec.models.caser",
    "PersonalTop": "seqrec.models.personal_top",
    "TIFUKNN": "seqrec.models.tifu_knn",
    "UPCF": "seqrec.models.up_cf",
    "TAIW": "seqrec.models.taiw",
    "Ensemble": "seqrec.models.ensemble",
    "DSSM": "seqrec.models.dssm",
    "DIN": "seqrec.models.din",
    "BST": "seqrec.models.bst",
    "Rerank": "seqrec.models.rerank",
    "Model": "seqrec.models.model",
    "FitOptions": "seqrec.training.options",
    "load": "seqrec.models",
    "choose": "seqrec.experiment.choose",
}
__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from seqrec.data.interactions import Interactions as Interactions
    from seqrec.data.sequences import Sequences as Sequences
    from seqrec.experiment.choose import choose as choose
    from seqrec.models import load as load
    from seqrec.models.bert4rec import BERT4Rec as BERT4Rec
    from seqrec.models.bsarec import BSARec as BSARec
    from seqrec.models.bst import BST as BST
    from seqrec.models.caser import Caser as Caser
    from seqrec.models.din import DIN as DIN
    from seqrec.models.dssm import DSSM as DSSM
    from seqrec.models.ensemble import Ensemble as Ensemble
    from seqrec.models.esasrec import ESASRec as ESASRec
    from seqrec.models.fmlp import FMLP as FMLP
    from seqrec.models.fpmc import FPMC as FPMC
    from seqrec.models.fuxi import FuXi as FuXi
    from seqrec.models.gru4rec import GRU4Rec as GRU4Rec
    from seqrec.models.hrm import HRM as HRM
    from seqrec.models.hstu import HSTU as HSTU
    from seqrec.models.item_knn import ItemKNN as ItemKNN
    from seqrec.models.lrurec import LRURec as LRURec
    from seqrec.models.markov import Markov as Markov
    from seqrec.models.model import Model as Model
    from seqrec.models.narm import NARM as NARM
    from seqrec.models.personal_top import PersonalTop as PersonalTop
    from seqrec.models.popularity import Popularity as Popularity
    from seqrec.models.recent_popularity import RecentPopularity as RecentPopularity
    from seqrec.models.rerank import Rerank as Rerank
    from seqrec.models.sasrec import SASRec as SASRec
    from seqrec.models.taiw import TAIW as TAIW
    from seqrec.models.tifu_knn import TIFUKNN as TIFUKNN
    from seqrec.models.up_cf import UPCF as UPCF
    from seqrec.models.vsknn import VSKNN as VSKNN
    from seqrec.sources.reading import read_log as read_log
    from seqrec.splitting import Split as Split
    from seqrec.splitting import SplitSettings as SplitSettings
    from seqrec.training.options import FitOptions as FitOptions


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'seqrec' has no attribute {name!r}")
