"""What a wheel holds: the package alone, with all of its files. ``python .ci/check_wheel.py WHEEL``."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(wheel: str) -> None:
    """Raises AssertionError where it holds more or less."""
    names = set(zipfile.ZipFile(wheel).namelist())
    strangers = sorted(name for name in names if not name.startswith(("eoc_theory/", "eoc_theory-")))
    assert not strangers, f"the wheel holds more than eoc_theory: {strangers}"
    files = (path for path in (ROOT / "eoc_theory").rglob("*") if path.is_file())
    wanted = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    missing = sorted(name for name in wanted - names if not name.endswith((".pyc", ".nbi", ".nbc")))
    assert not missing, f"the wheel lacks {missing}"
    print(f"the wheel holds {len(names)} files, all of eoc_theory")


if __name__ == "__main__":
    main(sys.argv[1])
