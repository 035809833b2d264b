"""``python -m eoc_theory`` is the command ``eoc``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
