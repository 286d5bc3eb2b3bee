"""Whether Metal's numbers are right on the Mac at hand, before they are used.

`machine`: the building blocks of the kernel language, compared with torch once for each Mac and version.
`comparison`: the first launch of each shader, compared with torch operators on the launch's own tensors.
`verdicts`: what these comparisons told, kept on disk.
"""

from patcher.tiles.admission.comparison import Undecided, first_launch
from patcher.tiles.admission.machine import why_not
from patcher.tiles.admission.verdicts import keep, recall

__all__ = ["Undecided", "first_launch", "keep", "recall", "why_not"]
