# Training of expression models by R's glmnet, at a tolerance so tight that it is converged, for numbers that any
# program can make again (no random draws): cross-validation with given folds, the nested cross-validation of PredictDB
# (gtex_v7_nested_cv_elnet.R) and one pair of powers of JTI (JTI.r), a row for every sample.
# Rscript make_golden.R        R 4.2.2, glmnet 4.1-6 (Debian 12: r-base-core, r-cran-glmnet)
library(glmnet)
tight <- list(thresh = 1e-20, maxit = 1e8)

dosages <- function(n, p) {
  x <- outer(1:n, 1:p, function(i, j) sin(1.7 * i * j + 0.3 * j^2) + sin(0.31 * i^1.3 + 2.1 * j + 0.7 * i * j^1.5))
  for (j in seq(2, p, 3)) x[, j] <- 0.8 * x[, j - 1] + 0.4 * x[, j]   # in LD
  (x > -0.4) + (x > 0.9)
}
outcome <- function(x, phase) {
  i <- 1:nrow(x)
  y <- 0.8 * x[, 1] - 0.6 * x[, 4] + 0.4 * x[, 8] + 1.2 * cos(2.3 * (i + phase)^1.5)
  as.numeric(scale(y))
}
folds <- function(n, k) (7 * (1:n)) %% k + 1
write <- function(rows, name) write.table(format(rows, digits = 17), name, sep = "\t", quote = FALSE, row.names = FALSE)

# Cross-validation: the folds are fitted at the lambdas of all rows, as is meant, not at lambdas of their own with
# interpolation between them, as cv.glmnet does when it is not given any.
cross_validation <- function(name, n, p, alpha) {
  x <- dosages(n, p); y <- outcome(x, 0)
  path <- do.call(glmnet, c(list(x, y, alpha = alpha), tight))
  fit <- do.call(cv.glmnet, c(list(x, y, alpha = alpha, lambda = path$lambda, foldid = folds(n, 10), keep = TRUE), tight))
  best <- which.min(fit$cvm)
  write(data.frame(lambda = fit$lambda, cvm = fit$cvm), paste0(name, "_errors.tsv"))
  b <- as.matrix(coef(fit, s = fit$lambda[best]))[, 1]
  write(data.frame(value = b), paste0(name, "_coefficients.tsv"))
  write(data.frame(value = fit$fit.preval[, best]), paste0(name, "_predictions.tsv"))
}
cross_validation("tall", 120, 30, 0.5)
cross_validation("wide", 60, 90, 0.5)
cross_validation("lasso", 60, 90, 1)

# Nested cross-validation, lambdas given for the reason above.
n <- 110; p <- 40
x <- dosages(n, p); y <- outcome(x, 3)
outer_folds <- folds(n, 5)
rows <- NULL
for (k in 1:5) {
  train <- outer_folds != k
  inner <- folds(sum(train), 10)
  path <- do.call(glmnet, c(list(x[train, ], y[train], alpha = 0.5), tight))
  fit <- do.call(cv.glmnet, c(list(x[train, ], y[train], alpha = 0.5, lambda = path$lambda, foldid = inner), tight))
  predicted <- as.numeric(predict(fit, x[!train, ], s = "lambda.min"))
  test <- cor.test(predicted, y[!train])
  rows <- rbind(rows, data.frame(r = as.numeric(test$estimate), p = test$p.value,
                                 r2 = 1 - sum((y[!train] - predicted)^2) / sum(y[!train]^2)))
}
write(rows, "nested.tsv")

# JTI: three tissues, similarities 1, 0.95, 0.9 and 1, 0.98, 0.7; powers 4 and 1.
n <- 90; p <- 35
x <- dosages(n, p)
have <- list((1:n) %% 3 != 0, (1:n) %% 4 != 1, (1:n) %% 5 != 2)
weight <- c(1, 0.95^4 * 0.98, 0.9^4 * 0.7)
donor <- unlist(lapply(have, which))
tissue <- rep(1:3, sapply(have, sum))
y <- unlist(lapply(1:3, function(t) { v <- outcome(x, 10 * t)[have[[t]]]; as.numeric(scale(v)) }))
lambda <- exp(seq(log(0.3), log(0.02), length.out = 21))
for (alpha in c(0.5, 1)) {
  fit <- do.call(cv.glmnet, c(list(x[donor, ], y, weights = weight[tissue], foldid = folds(n, 5)[donor],
                                   lambda = lambda, alpha = alpha, keep = TRUE), tight))
  best <- which.min(fit$cvm)
  test <- cor.test(fit$fit.preval[tissue == 1, best], y[tissue == 1])
  name <- paste0("jti_", alpha)
  write(data.frame(cvm = fit$cvm), paste0(name, "_errors.tsv"))
  write(data.frame(value = c(test$estimate, test$p.value, fit$glmnet.fit$beta[, best])), paste0(name, "_model.tsv"))
}
