"""All tables, in the order of the page."""

from jobs.measure.papers import duca, resca
from jobs.measure.papers.tables import Table

TABLES: tuple[Table, ...] = (
    resca.HUNYUAN_VIDEO,
    resca.FLUX,
    duca.FLUX,
    duca.TURNS,
    duca.DIT,
    duca.HIDREAM,
    duca.OPEN_SORA,
    resca.MERGING,
)
