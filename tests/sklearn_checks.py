"""scikit-learn's checks of estimators, in a process of its own.

One check asks for SCIPY_ARRAY_API before scipy is imported, hence the process.

Two of the checks fit rows with whole weights and the same rows repeated, and want the same predictions. That
holds for every estimator with a given alpha, and with `weights_are="frequency"` for every rule. With analytic
weights, the default, rules cannot have it: a row of weight 3 is one observation there and left out whole;
three equal rows are three observations, of which one is left out, and another alpha predicts such rows best.
scikit-learn declares these checks as failing for `LogisticRegression`, `LinearSVC` and others of its own. An
estimator with a rule is expected to fail them, and to pass them once it is told that weights are frequencies.

The automatic grids are coarse here: the checks ask for nothing that depends on how close its alphas lie.
"""

import json
import os
import subprocess
import sys

WHY = "analytic weights: a rule leaves a row out whole, however great its weight"
EQUIVALENCE = tuple(f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse"))
SCRIPT = """
import json, sys, warnings
import sklearn.utils.estimator_checks as peer
import elltwo
from elltwo.selection import grid
warnings.simplefilter("ignore")
grid.PER_DECADE = 1
report = {}
for text, expected in json.loads(sys.argv[1]).items():
    estimator = eval("elltwo." + text)
    checks = peer.check_estimator(estimator, expected_failed_checks=expected, on_fail=None, on_skip=None)
    report[text] = [(c["check_name"], c["status"], str(c["exception"])) for c in checks]
    for name, status, _ in report[text]:
        if name in expected and status == "xfail":
            frequency = eval("elltwo." + text).set_params(weights_are="frequency")
            getattr(peer, name)(type(estimator).__name__, frequency)
json.dump(report, sys.stdout)
"""


def assert_checks_pass(*passing: str, rules: tuple[str, ...] = (), least: int = 50) -> None:
    """Run all checks of estimators given as text; of those with rules, see above."""
    wanted = {text: {} for text in passing} | {text: dict.fromkeys(EQUIVALENCE, WHY) for text in rules}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(wanted)],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"SCIPY_ARRAY_API": "1"},
        timeout=3600,
    )
    assert run.returncode == 0, run.stderr
    for text, checks in json.loads(run.stdout).items():
        assert len(checks) > least, text
        # A check of a method that an estimator does not have is skipped by scikit-learn itself.
        lacking = [check for check in checks if check[1] == "skipped" and "does not have a" in check[2]]
        left = [check for check in checks if check[1] != "passed" and check not in lacking]
        assert {name: status for name, status, _ in left} == {
            name: "xfail" for name in wanted[text] if name in {check[0] for check in checks}
        }, (text, left)
