"""NIST Statistical Reference Datasets for linear regression: published data and certified values.

Source: National Institute of Standards and Technology, Statistical Reference Datasets (StRD),
linear regression, https://www.itl.nist.gov/div898/strd/lls/lls.shtml (a work of the United States
government, in the public domain). Numbers are kept as the decimal text that NIST publishes, so that a
test can tell the exact decimal from the float64 nearest to it. The five Wampler sets are
defined by a formula (R. H. Wampler, JASA 65, 1970, 549-565) and are generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NistSet:
    """One data set: exact decimals, certified coefficients, and the digits that we promise.

    Attributes
    ----------
    columns : tuple of p tuples of Fraction
        Features, exact. For a polynomial, the powers x, x², ….
    y : tuple of n Fraction
    certified : tuple of str
        Certified coefficients, intercept first when there is one.
    fit_intercept : bool
    floor : float
        Correct decimal digits of the worst coefficient that a float64 fit must reach.
    """

    name: str
    columns: tuple[tuple[Fraction, ...], ...]
    y: tuple[Fraction, ...]
    certified: tuple[str, ...]
    fit_intercept: bool
    floor: float

    @property
    def features(self) -> Array:
        """Each entry is the float64 nearest to the exact value, shape (n, p)."""
        return np.array([[float(v) for v in column] for column in self.columns]).T

    @property
    def target(self) -> Array:
        """Each entry is the float64 nearest to the exact value, shape (n,)."""
        return np.array([float(v) for v in self.y])

    @property
    def exact_coefficients(self) -> list[Fraction]:
        """Certified coefficients as exact decimals."""
        return [Fraction(c) for c in self.certified]


def _numbers(text: str) -> list[list[Fraction]]:
    return [[Fraction(word) for word in line.split()] for line in text.strip().splitlines()]


def _powers(x: list[Fraction], degree: int) -> tuple[tuple[Fraction, ...], ...]:
    return tuple(tuple(v**k for v in x) for k in range(1, degree + 1))


def _set(
    name: str, text: str, certified: str, *, floor: float, degree: int = 0, fit_intercept: bool = True
) -> NistSet:
    """Read "y x" (a polynomial of `degree` in x) or "y x1 x2 …" (`degree` 0) lines."""
    rows = _numbers(text)
    y = tuple(row[0] for row in rows)
    if degree:
        columns = _powers([row[1] for row in rows], degree)
    else:
        columns = tuple(zip(*(row[1:] for row in rows), strict=True))
    return NistSet(name, columns, y, tuple(certified.split()), fit_intercept, floor)


_LONGLEY = """
60323  83.0 234289 2356 1590 107608 1947
61122  88.5 259426 2325 1456 108632 1948
60171  88.2 258054 3682 1616 109773 1949
61187  89.5 284599 3351 1650 110929 1950
63221  96.2 328975 2099 3099 112075 1951
63639  98.1 346999 1932 3594 113270 1952
64989  99.0 365385 1870 3547 115094 1953
63761 100.0 363112 3578 3350 116219 1954
66019 101.2 397469 2904 3048 117388 1955
67857 104.6 419180 2822 2857 118734 1956
68169 108.4 442769 2936 2798 120445 1957
66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959
69564 114.2 502601 3931 2514 125368 1960
69331 115.7 518173 4806 2572 127852 1961
70551 116.9 554894 4007 2827 130081 1962
"""

_NORRIS = """
  0.1    0.2
338.8  337.4
118.1  118.2
888.0  884.6
  9.2   10.1
228.1  226.5
668.5  666.3
998.5  996.3
449.1  448.6
778.9  777.0
559.2  558.2
  0.3    0.4
  0.1    0.6
778.1  775.5
668.8  666.9
339.3  338.0
448.9  447.5
 10.8   11.6
557.7  556.0
228.3  228.1
998.0  995.8
888.8  887.6
119.6  120.2
  0.3    0.3
  0.6    0.3
557.6  556.8
339.3  339.1
888.0  887.2
998.5  999.0
778.9  779.0
 10.2   11.1
117.6  118.3
228.9  229.2
668.4  669.1
449.2  448.9
  0.2    0.5
"""

_PONTIUS = """
0.11019  150000
0.21956  300000
0.32949  450000
0.43899  600000
0.54803  750000
0.65694  900000
0.76562 1050000
0.87487 1200000
0.98292 1350000
1.09146 1500000
1.20001 1650000
1.30822 1800000
1.41599 1950000
1.52399 2100000
1.63194 2250000
1.73947 2400000
1.84646 2550000
1.95392 2700000
2.06128 2850000
2.16844 3000000
0.11052  150000
0.22018  300000
0.32939  450000
0.43886  600000
0.54798  750000
0.65739  900000
0.76596 1050000
0.87474 1200000
0.98300 1350000
1.09150 1500000
1.20004 1650000
1.30818 1800000
1.41613 1950000
1.52408 2100000
1.63159 2250000
1.73965 2400000
1.84696 2550000
1.95445 2700000
2.06177 2850000
2.16829 3000000
"""

_FILIP = """
0.8116 -6.860120914
0.9072 -4.324130045
0.9052 -4.358625055
0.9039 -4.358426747
0.8053 -6.955852379
0.8377 -6.661145254
0.8667 -6.355462942
0.8809 -6.118102026
0.7975 -7.115148017
0.8162 -6.815308569
0.8515 -6.519993057
0.8766 -6.204119983
0.8885 -5.853871964
0.8859 -6.109523091
0.8959 -5.79832982
0.8913 -5.482672118
0.8959 -5.171791386
0.8971 -4.851705903
0.9021 -4.517126416
0.909  -4.143573228
0.9139 -3.709075441
0.9199 -3.499489089
0.8692 -6.300769497
0.8872 -5.953504836
0.89   -5.642065153
0.891  -5.031376979
0.8977 -4.680685696
0.9035 -4.329846955
0.9078 -3.928486195
0.7675 -8.56735134
0.7705 -8.363211311
0.7713 -8.107682739
0.7736 -7.823908741
0.7775 -7.522878745
0.7841 -7.218819279
0.7971 -6.920818754
0.8329 -6.628932138
0.8641 -6.323946875
0.8804 -5.991399828
0.7668 -8.781464495
0.7633 -8.663140179
0.7678 -8.473531488
0.7697 -8.247337057
0.77   -7.971428747
0.7749 -7.676129393
0.7796 -7.352812702
0.7897 -7.072065318
0.8131 -6.774174009
0.8498 -6.478861916
0.8741 -6.159517513
0.8061 -6.835647144
0.846  -6.53165267
0.8751 -6.224098421
0.8856 -5.910094889
0.8919 -5.598599459
0.8934 -5.290645224
0.894  -4.974284616
0.8957 -4.64454848
0.9047 -4.290560426
0.9129 -3.885055584
0.9209 -3.408378962
0.9219 -3.13200249
0.7739 -8.726767166
0.7681 -8.66695597
0.7665 -8.511026475
0.7703 -8.165388579
0.7702 -7.886056648
0.7761 -7.588043762
0.7809 -7.283412422
0.7961 -6.995678626
0.8253 -6.691862621
0.8602 -6.392544977
0.8809 -6.067374056
0.8301 -6.684029655
0.8664 -6.378719832
0.8834 -6.065855188
0.8898 -5.752272167
0.8964 -5.132414673
0.8963 -4.811352704
0.9074 -4.098269308
0.9119 -3.66174277
0.9228 -3.2644011
"""

_NOINT1 = "\n".join(f"{130 + i} {60 + i}" for i in range(11))
_NOINT2 = "3 4\n4 5\n4 6"

# Wampler3's disturbance of the exact polynomial; Wampler4 and 5 have 100 and 10,000 times as much.
_DISTURBANCE = (
    "759 -2048 2048 -2048 2523 -2048 2048 -2048 1838 -2048 2048 -2048 1838 -2048 2048 -2048 2523 "
    "-2048 2048 -2048 759"
)


def _wampler(number: int, base: Fraction, disturbance: int) -> NistSet:
    x = [Fraction(i) for i in range(21)]
    delta = [Fraction(word) for word in _DISTURBANCE.split()]
    y = tuple(
        sum(((base * v) ** k for k in range(6)), disturbance * d) for v, d in zip(x, delta, strict=True)
    )
    certified = tuple(str(base**k) for k in range(6))
    return NistSet(f"Wampler{number}", _powers(x, 5), y, certified, True, floor=9.0)


NIST = (
    _set(
        "Longley",
        _LONGLEY,
        "-3482258.63459582 15.0618722713733 -0.358191792925910E-01 -2.02022980381683 "
        "-1.03322686717359 -0.511041056535807E-01 1829.15146461355",
        floor=13.0,
    ),
    _wampler(1, Fraction(1), 0),
    _wampler(2, Fraction(1, 10), 0),
    _wampler(3, Fraction(1), 1),
    _wampler(4, Fraction(1), 100),
    _wampler(5, Fraction(1), 10_000),
    _set(
        "Filip",
        _FILIP,
        "-1467.48961422980 -2772.17959193342 -2316.37108160893 -1127.97394098372 -354.478233703349 "
        "-75.1242017393757 -10.8753180355343 -1.06221498588947 -0.670191154593408E-01 "
        "-0.246781078275479E-02 -0.402962525080404E-04",
        degree=10,
        floor=7.0,
    ),
    _set("Norris", _NORRIS, "-0.262323073774029 1.00211681802045", floor=13.0),
    _set(
        "Pontius",
        _PONTIUS,
        "0.673565789473684E-03 0.732059160401003E-06 -0.316081871345029E-14",
        degree=2,
        floor=13.0,
    ),
    _set("NoInt1", _NOINT1, "2.07438016528926", fit_intercept=False, floor=13.0),
    _set("NoInt2", _NOINT2, "0.727272727272727", fit_intercept=False, floor=13.0),
)
