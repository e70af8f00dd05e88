"""The claims of the papers: what is compared, in which metric, and the rule of each verdict.

Rules are fixed here before anything runs; `studies.py` runs them.
"""

from mimlib.evidence.claims.convmae import CONVMAE
from mimlib.evidence.claims.croco import CROCO
from mimlib.evidence.claims.labels import LABELS
from mimlib.evidence.claims.mae import MAE
from mimlib.evidence.claims.selfpatch import SELFPATCH
from mimlib.evidence.claims.study import Rule, Study
from mimlib.evidence.claims.terms import FLOORS

__all__ = ["FLOORS", "STUDIES", "Rule", "Study"]
STUDIES = {study.name: study for study in (*MAE, *CONVMAE, *LABELS, *CROCO, *SELFPATCH)}
