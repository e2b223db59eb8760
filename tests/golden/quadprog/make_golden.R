# Constrained projections by quadprog: min |m - B w|^2, w >= 0, sum w <= 1.
#
#   Rscript make_golden.R
#
# Debian bookworm: R 4.2.2, r-cran-quadprog 1.5.8.
# reference.tsv: 60 markers of 6 cell types. samples.tsv: 30 samples; some sum to less than 1, some want more than 1.
# proportions.tsv: solve.QP of each.
suppressMessages(library(quadprog))
options(digits = 17)
set.seed(5)
b <- round(matrix(rbeta(60 * 6, 0.6, 0.6), 60, 6), 4)
colnames(b) <- c("cd8", "cd4", "nk", "b", "mono", "neu")
w <- matrix(rgamma(6 * 30, c(0.5, 1, 0.2, 0.3, 0.4, 5)), 6, 30)
w <- sweep(w, 2, colSums(w) / rep(c(1, 0.8, 1.1), 10), "/")
m <- round(b %*% w + rnorm(60 * 30, sd = 0.08), 4)
found <- sapply(1:30, function(k) {
  solve.QP(crossprod(b), crossprod(b, m[, k]), cbind(diag(6), -1), c(rep(0, 6), -1))$solution
})
out <- function(x, name, ids) {
  write.table(data.frame(ids, apply(x, 2, function(v) sprintf("%.15g", v))), name, sep = "\t", quote = FALSE, row.names = FALSE)
}
out(b, "reference.tsv", data.frame(feature = sprintf("cg%02d", 1:60)))
colnames(m) <- sprintf("S%02d", 1:30)
out(m, "samples.tsv", data.frame(feature = sprintf("cg%02d", 1:60)))
found <- t(found)
colnames(found) <- colnames(b)
out(found, "proportions.tsv", data.frame(participant_id = colnames(m)))
