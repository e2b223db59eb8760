# Paths of R's glmnet at a tolerance so tight that it is converged (on these correlated columns thresh = 1e-14 still
# leaves 1e-5 in coefficients), for numbers that any program can make again (no random draws).
# Rscript make_golden.R        R 4.2.2, glmnet 4.1-6 (Debian 12: r-base-core, r-cran-glmnet)
library(glmnet)
glmnet.control(fdev = 0, devmax = 1)

columns <- function(n, p) {
  x <- outer(1:n, 1:p, function(i, j) sin(1.7 * i * j + 0.3 * j^2) + 0.6 * cos(0.9 * i + 0.05 * j))
  x[, 2] <- 0.95 * x[, 1] + 0.1 * x[, 2]
  x
}
response <- function(x) {
  y <- x[, 1] - 0.7 * x[, 4] + 0.5 * x[, 5] + 1.5 * cos(2.3 * (1:nrow(x))^1.5)
  y <- y - mean(y)
  y / sqrt(mean(y^2))     # variance 1 with divisor n: then glmnet's ridge part is the formula's
}
fit <- function(name, n, p, alpha, factor = rep(1, p), weights = rep(1, n)) {
  x <- columns(n, p)
  y <- response(x)
  if (length(unique(weights)) > 1) {   # weighted variance 1, for the same reason
    w <- weights / sum(weights)
    y <- y - sum(w * y)
    y <- y / sqrt(sum(w * y^2))
  }
  found <- glmnet(x, y, alpha = alpha, penalty.factor = factor, weights = weights, thresh = 1e-22, maxit = 1e8,
                  nlambda = 100)
  rows <- data.frame(case = name, lambda = found$lambda, t(as.matrix(found$beta)), check.names = FALSE)
  kept <- rows[c(1, 2, 10, 30, 50, 80, 100), ]
  write.table(format(kept, digits = 17), paste0(name, ".tsv"), sep = "\t", quote = FALSE, row.names = FALSE)
}
fit("lasso", 40, 8, 1)
fit("elastic_net", 40, 8, 0.5)
fit("factors", 40, 8, 1, factor = c(0, 0, rep(1, 6)))
fit("weights", 40, 8, 0.5, weights = 1 + (1:40) %% 5)
fit("wide", 25, 60, 0.5)
