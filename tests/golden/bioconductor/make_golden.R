# Numbers of R for the tests of counts, replication and ontology enrichment.
#
#   Rscript make_golden.R FOLDER_OF_GO_TABLES
#
# Debian bookworm: R 4.2.2, r-bioc-limma 3.54, r-bioc-org.hs.eg.db 3.16.0, r-bioc-go.db 3.16.0, r-bioc-qvalue 2.30.0.
# hypergeometric.tsv: phyper, upper tail, in logarithms.
# goana.tsv: limma's goana of a cluster of genes in a universe, by rules on Entrez numbers that the test repeats.
# pi0.tsv: qvalue's pi0est at lambda 0.5 of p-values drawn here, and those p-values.
suppressMessages({library(limma); library(org.Hs.eg.db); library(qvalue)})
options(digits = 17)
set.seed(1)
n <- 400
total <- sample(50:25000, n, replace = TRUE)
special <- pmax(1, round(total * runif(n)^3))
drawn <- pmax(1, round(total * runif(n)^3))
overlap <- pmax(0, pmin(special, drawn, round(special * drawn / total) + sample(-5:40, n, replace = TRUE)))
far <- data.frame(total = 20000, special = c(300, 500, 450), drawn = c(300, 900, 2000), overlap = c(300, 450, 440))
table <- rbind(data.frame(total, special, drawn, overlap), far)
table$ln_p <- with(table, phyper(overlap - 1, special, total - special, drawn, lower.tail = FALSE, log.p = TRUE))
table$ln_p <- sprintf("%.17g", table$ln_p)
write.table(table, "hypergeometric.tsv", sep = "\t", quote = FALSE, row.names = FALSE)

ids <- read.delim(gzfile(file.path(commandArgs(TRUE)[1], "human_direct_cc.tsv.gz")), colClasses = "character")
genes <- sort(unique(ids$entrez))
universe <- genes[as.integer(genes) %% 3 == 0]
synapse <- unique(ids$entrez[ids$go_id %in% c("GO:0045202", "GO:0014069", "GO:0098978")])
numbers <- as.integer(universe)
cluster <- universe[(universe %in% synapse & numbers %% 5 == 0) | numbers %% 37 == 0]
found <- goana(cluster, universe = universe, species = "Hs")
found <- found[found$DE > 0 & found$N >= 15 & found$N <= 500 & found$Ont == "CC", ]
found <- data.frame(go_id = rownames(found), n_term = found$N, n_overlap = found$DE, p = sprintf("%.17g", found$P.DE))
write.table(found[order(found$go_id), ], "goana.tsv", sep = "\t", quote = FALSE, row.names = FALSE)

p <- c(runif(700), rbeta(300, 0.3, 8))
pi0 <- pi0est(p, lambda = 0.5)$pi0
write.table(data.frame(p = sprintf("%.17g", p), pi0 = sprintf("%.17g", pi0)), "pi0.tsv", sep = "\t", quote = FALSE,
            row.names = FALSE)
