"""What people read: figures, tables, and one self-contained HTML page per run."""

from .figures import method_comparison, training_curves, weight_histogram
from .page import Gallery, GalleryItem, Plot, Section, Table, write_page
from .tables import Cell, Interval, markdown_table, mean_interval, text_table

__all__ = [
    "Cell",
    "Gallery",
    "GalleryItem",
    "Interval",
    "Plot",
    "Section",
    "Table",
    "markdown_table",
    "mean_interval",
    "method_comparison",
    "text_table",
    "training_curves",
    "weight_histogram",
    "write_page",
]
