# Regions of dmrff on numbers drawn here.
#
#   Rscript make_golden.R DMRFF/R
#
# R 4.2.2; the functions of dmrff 1.0.0 (github.com/perishky/dmrff): bumphunter.r, dmrff.r, ivwfe.r, shrink.r.
# features.tsv: chromosome, position, estimate, standard error and p of 220 features, with values of 40 people, of which
# some are missing. regions.tsv: what dmrff finds, with p < 0.1 as the level.
suppressMessages(library(parallel))
options(digits = 17)
for (file in c("bumphunter.r", "ivwfe.r", "shrink.r", "dmrff.r")) source(file.path(commandArgs(TRUE)[1], file))
set.seed(8)
g <- 220
n <- 40
chr <- rep(c("1", "2"), c(120, 100))
pos <- c(cumsum(sample(c(60, 150, 300, 700), 120, replace = TRUE)), cumsum(sample(c(60, 150, 300, 700), 100, replace = TRUE)))
shared <- matrix(rnorm(g * n), g, n)
values <- shared
for (k in 2:g) values[k, ] <- 0.7 * values[k - 1, ] + 0.7 * shared[k, ]
x <- rnorm(n)
values[30:36, ] <- values[30:36, ] + outer(rep(0.6, 7), x)
values[140:143, ] <- values[140:143, ] - outer(rep(0.9, 4), x)
values[sample(length(values), 150)] <- NA
values <- round(values, 4)
fits <- t(sapply(1:g, function(k) summary(lm(values[k, ] ~ x))$coefficients["x", c(1, 2, 4)]))
fits <- signif(fits, 12)
found <- dmrff(fits[, 1], fits[, 2], fits[, 3], values, chr, pos, p.cutoff = 0.1, verbose = FALSE)
text <- function(v) ifelse(is.na(v), "NA", sprintf("%.15g", v))
features <- data.frame(
  chromosome = chr, position = pos, estimate = text(fits[, 1]), se = text(fits[, 2]), p = text(fits[, 3]), apply(values, 2, text)
)
write.table(features, "features.tsv", sep = "\t", quote = FALSE, row.names = FALSE)
for (k in names(found)) if (k != "chr") found[[k]] <- text(found[[k]])
write.table(found, "regions.tsv", sep = "\t", quote = FALSE, row.names = FALSE)
