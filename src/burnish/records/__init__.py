"""Records as people have them, read into conversations; no torch, no store.

rows.py         files into rows: JSON, JSON lines, CSV, Parquet, text
json_list.py    a JSON list as a stream
formats.py      which format a file is in, and how its rows become examples
messages.py     turns in OpenAI's and ShareGPT's way
pairs.py        prompt and completion, Alpaca, plain text
exports.py      what labelling tools write
read.py         read_records, read_examples: all of it together
rejects.py      refused rows, kept with the reason
fingerprint.py  hashes blind to case and white space
"""

from burnish.records.read import (
    ExamplesRead,
    Records,
    read_examples,
    read_records,
    training_prompts,
)
from burnish.records.rows import Reject

__all__ = ["ExamplesRead", "Records", "Reject", "read_examples", "read_records", "training_prompts"]
