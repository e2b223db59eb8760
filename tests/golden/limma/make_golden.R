# Moderated t statistics of limma on numbers drawn here.
#
#   Rscript make_golden.R
#
# Debian bookworm: R 4.2.2, r-bioc-limma 3.54.1.
# features.tsv: 240 features of 36 people, of unequal variance; a fifth of the features lack some people.
# people.tsv: two traits (the second lacks four people), covariates.
# moderated.tsv: lmFit and eBayes of feature ~ trait + covariates, for each trait, for three sets of features: all, those
# that everybody has (equal degrees of freedom), and noise of equal variance, for which d0 is infinite.
# prior.tsv: d0 and s0^2 of each, and of five variances (fitFDist).
suppressMessages(library(limma))
options(digits = 17)
set.seed(3)
n <- 36
g <- 240
ids <- sprintf("P%02d", 1:n)
people <- data.frame(
  participant_id = ids, trait_1 = round(rnorm(n), 4), trait_2 = round(rexp(n), 4), age = round(runif(n, 45, 80), 1),
  sex = rbinom(n, 1, 0.5), site = sample(c("A", "B", "C"), n, replace = TRUE)
)
people$trait_2[c(2, 9, 17, 30)] <- NA
sd <- sqrt(0.3 * 6 / rchisq(g, 6))
features <- matrix(rnorm(g * n, sd = sd), g, n) + 0.02 * outer(rnorm(g), people$age)
features[1:12, ] <- features[1:12, ] + outer(rep(0.4, 12), people$trait_1)
lacking <- sample(g, g / 5)
for (k in lacking) features[k, sample(n, sample(1:10, 1))] <- NA
features[7, people$site == "C"] <- NA # its people leave the sites collinear
features <- round(features, 4)
rownames(features) <- sprintf("cg%04d", 1:g)
colnames(features) <- ids
equal <- round(matrix(rnorm(60 * n), 60, n), 4)
equal <- round(equal / apply(equal, 1, sd) * rep(c(1, 1.02), 30), 4)
rownames(equal) <- sprintf("ch%04d", 1:60)
colnames(equal) <- ids
moderated <- prior <- NULL
sets <- list(all = features, whole = features[!is.na(rowSums(features)), ], equal = equal)
for (set in names(sets)) {
  for (trait in c("trait_1", "trait_2")) {
    some <- people[!is.na(people[[trait]]), ]
    design <- model.matrix(as.formula(paste("~", trait, "+ age + sex + site")), some)
    fit <- suppressWarnings(lmFit(sets[[set]][, some$participant_id], design))
    fit <- eBayes(fit)
    df <- fit$df.residual
    moderated <- rbind(moderated, data.frame(
      set = set, trait = trait, feature = rownames(sets[[set]]), beta = fit$coefficients[, trait],
      unscaled = fit$stdev.unscaled[, trait], df = df, variance = fit$sigma^2, posterior = fit$s2.post,
      t = fit$t[, trait], df_total = fit$df.total, p = fit$p.value[, trait]
    ))
    prior <- rbind(prior, data.frame(set = set, trait = trait, d0 = fit$df.prior, s2_prior = fit$s2.prior))
  }
}
five <- fitFDist(c(1, 2, 4, 8, 0.5), 10)
prior <- rbind(prior, data.frame(set = "five", trait = "", d0 = five$df2, s2_prior = five$scale))
write <- function(table, name) {
  for (k in seq_along(table)) if (is.numeric(table[[k]])) table[[k]] <- ifelse(is.na(table[[k]]), "NA", sprintf("%.15g", table[[k]]))
  write.table(table, name, sep = "\t", quote = FALSE, row.names = FALSE)
}
write(data.frame(feature = c(rownames(features), rownames(equal)), rbind(features, equal)), "features.tsv")
write(people, "people.tsv")
write(moderated, "moderated.tsv")
write(prior, "prior.tsv")
