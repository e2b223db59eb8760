# Rscript hclust.R: R's hclust and cutree on the dissimilarities of matrix.csv.
distance <- as.matrix(read.csv("matrix.csv", header = FALSE))
for (method in c("ward.D2", "ward.D")) {
  tree <- hclust(as.dist(distance), method = method)
  write.table(
    data.frame(
      merge_1 = tree$merge[, 1], merge_2 = tree$merge[, 2],
      height = formatC(tree$height, digits = 17, format = "g"), order = tree$order[-1], first = tree$order[1]
    ),
    paste0(method, ".csv"), sep = ",", row.names = FALSE, quote = FALSE
  )
  write.table(
    cutree(tree, k = c(2, 5, 17)), paste0(method, ".cut.csv"), sep = ",", row.names = FALSE, quote = FALSE
  )
}
writeLines(R.version.string, "version.txt")
