"""The studies. A new one is declared in a module here, and named in the list below."""

from __future__ import annotations

from ..study import Study
from . import atlas, collapse, pruned, remedies, trained, trust

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        pruned.SMALL,
        pruned.PHASES,
        pruned.CRITERIA,
        pruned.RESIDUAL,
        trained.RESCALING,
        trained.RESCALING_MNIST,
        remedies.REMEDIES_DIGITS,
        remedies.REMEDIES_FULL,
        trained.IMAGES,
        trained.IMAGES_DIGITS,
        *trust.STUDIES,
        *collapse.STUDIES,
        atlas.ATLAS,
    )
}
