"""Peak memory of this process."""

import platform
import resource
from pathlib import Path

__all__ = ["peak_memory_bytes"]


def peak_memory_bytes() -> int:
    """Return the most resident memory of this process or of a worker.

    On Linux from VmHWM, which starts anew with the program; ``ru_maxrss`` still has the memory of the process that
    started it.
    """
    unit = 1 if platform.system() == "Darwin" else 1024
    own = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():
        marks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        own = 1024 * int(marks[0]) if marks else own
    return max(own, unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
