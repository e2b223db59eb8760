"""Write matrix.csv: 1 - Spearman of 60 planted phenotypes over 200 genes, then run `Rscript hclust.R` here."""

from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

HERE = Path(__file__).parent


def main() -> None:
    """Write the dissimilarities with all their digits."""
    rng = np.random.default_rng(20)
    centres = rng.normal(size=(200, 6))
    z = centres[:, rng.integers(0, 6, 60)] + rng.normal(size=(200, 60))
    distance = 1.0 - spearmanr(z).statistic
    np.savetxt(HERE / "matrix.csv", distance, delimiter=",", fmt="%.17g")


if __name__ == "__main__":
    main()
