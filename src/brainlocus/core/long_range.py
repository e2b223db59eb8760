"""Regions of long-range linkage disequilibrium.

Inversions, the major histocompatibility complex and the surroundings of centromeres, whose variants go together over
megabases: a component of ancestry otherwise becomes one of these regions.

References
----------
Price et al. (2008), 10.1016/j.ajhg.2008.06.005; Anderson et al. (2010), 10.1038/nprot.2010.116; positions as listed in
the Genome Analysis Wiki of the University of Michigan, "Regions of high linkage disequilibrium", those of 100 kb and
more; on GRCh37 chromosomes 5 and 11 with the wider bounds of the inversions there.
"""

from brainlocus.core.errors import AlignmentError, nearest
from brainlocus.core.regions import Region

__all__ = ["LONG_RANGE_LD", "long_range_ld"]


def _regions(text: str, unit: int) -> tuple[Region, ...]:
    found = []
    for item in text.split():
        chromosome, span = item.split(":")
        start, stop = span.split("-")
        found.append(Region(chromosome, round(float(start) * unit), round(float(stop) * unit)))
    return tuple(found)


LONG_RANGE_LD = {
    "GRCh37": _regions(
        """1:48-52 2:86-100.5 2:134.5-138 2:183-190 3:47.5-50 3:83.5-87 3:89-97.5 5:44-51.5 5:98-100.5 5:129-132
        5:135.5-138.5 6:25-35 6:57-64 6:140-142.5 7:55-66 8:7-13 8:43-50 8:112-115 10:37-43 11:45-57 11:87.5-90.5
        12:33-40 12:109.5-112 20:32-34.5""",
        1_000_000,
    ),
    "GRCh38": _regions(
        """1:47761740-51761740 2:85919365-100517106 2:182427027-189427029 3:47483505-49987563 3:83368158-86868160
        5:44464140-51168409 5:129636407-132636409 6:25391792-33424245 6:57788603-58453888 6:61109122-61357029
        6:139637169-142137170 7:54964812-66897578 8:8105067-12105082 8:43025699-48924888 8:110918594-113918595
        10:36671065-43184546 11:88127183-91127184 12:32955798-41319931 20:33948532-36438183""",
        1,
    ),
}
"""Regions by genome build."""


def long_range_ld(genome_build: str) -> tuple[Region, ...]:
    """Return the regions of a build.

    Raises
    ------
    AlignmentError
        There is no list for the build.

    Examples
    --------
    >>> long_range_ld("GRCh37")[0]
    Region(chromosome='1', start=48000000, stop=52000000)
    """
    if genome_build not in LONG_RANGE_LD:
        raise AlignmentError(
            f"Regions of long-range LD are known on {' and '.join(LONG_RANGE_LD)}; the genotypes are on "
            f"{genome_build!r}.{nearest(genome_build, list(LONG_RANGE_LD))} State --genome-build, or list the regions."
        )
    return LONG_RANGE_LD[genome_build]
