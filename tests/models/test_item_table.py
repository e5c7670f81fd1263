"""Tables of items that share parts of their vectors: codes from who took what, and every model with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import seqrec
from seqrec import models
from seqrec.data.sequences import Sequences
from seqrec.errors import SettingsError
from seqrec.models.item_table import ItemTableSettings, codes_of
from seqrec.nn.jpq import JPQEmbedding
from seqrec.splitting import leave_one_out
from seqrec.testing import ModelContract, sequences_of, small_log
from seqrec.training import threads
from tests.models.test_contract import FAST, FEATURES
