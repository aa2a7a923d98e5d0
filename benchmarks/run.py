"""Print the table of all claims about speed and memory: `make bench`, or `python benchmarks/run.py NAME …`.

Each case runs in a process of its own. The figures are ratios within one run; seconds depend on the machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cases import CASES
from outcome import Unmeasured


def run_one(name: str) -> None:
    case = next(c for c in CASES if c.__name__ == name)
    try:
        outcome = case()
    except Unmeasured as reason:
        print(f"{name:15s} not measured: {reason}", flush=True)
        return
    sign = "at least" if outcome.more else "at most"
    verdict = "met" if outcome.met else "MISSED"
    print(
        f"{name:15s} {outcome.ratio:8.3g} x  {sign:8s} {outcome.bar:6g}  {verdict:7s} {outcome.detail}",
        flush=True,
    )


def main(names: list[str]) -> None:
    if names[:1] == ["--one"]:
        run_one(names[1])
        return
    known = [case.__name__ for case in CASES]
    if unknown := set(names) - set(known):
        sys.exit(f"no such benchmark: {', '.join(unknown)}; choose from {', '.join(known)}")
    for case in CASES:
        if not names or case.__name__ in names:
            print((case.__doc__ or "").splitlines()[0])
            subprocess.run(
                [sys.executable, __file__, "--one", case.__name__], check=True, cwd=Path(__file__).parent
            )


if __name__ == "__main__":
    main(sys.argv[1:])
