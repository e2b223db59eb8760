# MR-JTI by R's glmnet on the public example, with folds and draws by rule instead of by chance, so that any program can
# repeat it.
# Rscript make_golden.R mrjti_example.txt > golden.tsv        R 4.2.2, glmnet 4.1-6 (Debian 12: r-base-core, r-cran-glmnet)
suppressMessages(library(glmnet))
glmnet.control(fdev = 0, devmax = 1)
d <- read.table(commandArgs(TRUE)[1], header = TRUE, stringsAsFactors = FALSE)
d <- d[order(d$gwas_p), ]
n <- nrow(d); q <- sum(d$gwas_p < 0.05); B <- 40; alpha <- 0.1
one <- function(weights, name) {
  x <- scale(cbind(d$eqtl_beta, d$ldscore, diag(n)[, 1:q])); y <- as.numeric(scale(d$gwas_beta))
  factor <- c(0, 0, rep(1, q))
  path <- function(x, y, weights, ...)
    glmnet(x, y, weights = weights, penalty.factor = factor, thresh = 1e-20, maxit = 1e8, ...)
  whole <- path(x, y, weights)
  error <- 0
  for (k in 0:4) {
    train <- (0:(n - 1)) %% 5 != k
    part <- path(x[train, ], y[train], weights[train], lambda = whole$lambda)
    error <- error + colMeans((y[!train] - predict(part, x[!train, ]))^2) / 5
  }
  best <- whole$lambda[which.min(error)]
  b <- coef(whole, s = best)[-1]; fitted <- as.numeric(predict(whole, x, s = best))
  residual <- y - fitted; residual <- residual - mean(residual)
  cut <- function(v) ifelse(abs(v) < 1 / ncol(x), 0, v)
  draws <- t(sapply(0:(B - 1), function(k) {
    row <- (13 * k * k + (0:(n - 1)) * (2 * k + 7)) %% n
    cut(coef(path(x, fitted + residual[row + 1], weights), s = best)[-1])
  }))
  low <- apply(draws, 2, quantile, alpha / 2); high <- apply(draws, 2, quantile, 1 - alpha / 2)
  data.frame(case = name, term = c("expression", "ldsc", d$rsid[1:q]), lambda = best, estimate = colMeans(draws),
             coefficient = cut(b), lower = 2 * cut(b) - high, upper = 2 * cut(b) - low, frequency = colMeans(draws != 0))
}
found <- rbind(one(rep(1, n), "plain"), one(1 / d$gwas_se^2, "weighted"))
write.table(format(found, digits = 17), sep = "\t", quote = FALSE, row.names = FALSE)
