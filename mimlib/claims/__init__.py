"""The claims of the papers: what is compared, in which metric, and the rule of each verdict.

Rules are fixed here before anything runs; `studies.py` runs them.
"""

from mimlib.claims.convmae import CONVMAE
from mimlib.claims.croco import CROCO
from mimlib.claims.mae import MAE
from mimlib.claims.selfpatch import SELFPATCH
from mimlib.claims.study import Rule, Study

__all__ = ["STUDIES", "Rule", "Study"]

STUDIES = {study.name: study for study in (*MAE, *CONVMAE, *CROCO, *SELFPATCH)}
