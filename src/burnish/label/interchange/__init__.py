"""Labels in and out, in the formats of labelling tools and as plain JSONL and CSV.

importing.py     import_labels: a file of any format into the store, a page at a time
fitting.py       what a page says fitted to the store: examples found, answers checked
exporting.py     export_labels, stream_labels: the store's labels into a file or a stream
formats.py       which format a file is in, and which holds a task's answers
rows.py          the row of the plain formats
kept.py          what a tool has no place for: kept in a field of our own, and read back
label_studio.py, argilla.py, prodigy.py, doccano.py    a tool's records, written and read
offsets.py       spans in code points and in UTF-16 code units

docs/interchange.md says field by field what each format carries.
"""

from burnish.label.interchange.exporting import export_labels, stream_labels
from burnish.label.interchange.formats import LabelFormat
from burnish.label.interchange.importing import LabelImport, import_labels

__all__ = ["LabelFormat", "LabelImport", "export_labels", "import_labels", "stream_labels"]
