# Writes glmnet_values.py: data, and the coefficients that R's glmnet finds on them.
# Run in this folder:  Rscript make_glmnet_values.R
# thresh is far below glmnet's default of 1e-7, which leaves about 4 correct digits.

suppressMessages(library(glmnet))
set.seed(20)
n <- 24
X <- matrix(round(rnorm(n * 3), 3), n)
eta <- X %*% c(1, -0.7, 0.4)
y <- list(
  gaussian = as.vector(round(4 + 3 * eta + rnorm(n), 3)),
  logistic = as.vector(rbinom(n, 1, plogis(0.3 + eta))),
  poisson = as.vector(rpois(n, exp(0.5 + eta / 2)))
)
weights <- round(runif(n, 0.2, 3), 3)
family <- c(gaussian = "gaussian", logistic = "binomial", poisson = "poisson")

numbers <- function(x, digits = 15) paste(sprintf("%.*g", digits, as.vector(x)), collapse = ", ")

case <- function(name, loss, lambda, weighted = FALSE, intercept = TRUE, standardize = FALSE,
                 use = family[[loss]], target = y[[loss]]) {
  w <- if (weighted) weights else rep(1, n)
  fit <- glmnet(X, target, family = use, weights = w, alpha = 0, lambda = lambda, intercept = intercept,
                standardize = standardize, thresh = 1e-25, maxit = 1e7)
  found <- coef(fit)
  if (is.list(found)) found <- found[[1]]
  python <- function(flag) if (flag) "True" else "False"
  sprintf('    Case("%s", "%s", %s, %s, %s, %s, (%s)),', name, loss, format(lambda), python(weighted),
          python(intercept), python(standardize), numbers(found, 17))
}

out <- c(
  '"""Written by make_glmnet_values.R: what R\'s glmnet(alpha = 0) finds on small data."""',
  "",
  "from typing import NamedTuple",
  "",
  "# ruff: noqa: E501",
  "# fmt: off",
  sprintf('VERSION = "R %s.%s, glmnet %s"', R.version$major, R.version$minor, packageVersion("glmnet")),
  sprintf("X = (%s)  # row by row, 3 columns", numbers(t(X))),
  sprintf("WEIGHTS = (%s)", numbers(weights)),
  "Y = {",
  sprintf('    "%s": (%s),', names(y), vapply(y, numbers, "")),
  "}",
  "",
  "",
  "class Case(NamedTuple):",
  "    name: str",
  "    loss: str",
  "    lam: float",
  "    weighted: bool",
  "    intercept: bool",
  "    standardize: bool",
  "    coef: tuple[float, ...]  # intercept first",
  "",
  "",
  "CASES = (",
  case("gaussian", "gaussian", 0.7),
  case("gaussian-small", "gaussian", 0.02),
  case("gaussian-weighted", "gaussian", 0.7, weighted = TRUE),
  case("gaussian-no-intercept", "gaussian", 0.7, intercept = FALSE),
  case("gaussian-standardized", "gaussian", 0.7, standardize = TRUE),
  case("gaussian-weighted-standardized", "gaussian", 0.7, weighted = TRUE, standardize = TRUE),
  case("logistic", "logistic", 0.05),
  case("logistic-weighted", "logistic", 0.05, weighted = TRUE),
  case("poisson", "poisson", 0.3),
  case("poisson-weighted", "poisson", 0.3, weighted = TRUE),
  ")",
  "",
  "# These two do not divide the target by its standard deviation.",
  "UNSCALED = (",
  case("mgaussian", "gaussian", 0.7, use = "mgaussian", target = cbind(y$gaussian, 1 - y$gaussian)),
  case("gaussian()", "gaussian", 0.7, use = gaussian()),
  ")"
)
writeLines(out, "glmnet_values.py")
