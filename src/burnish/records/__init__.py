"""Records as people have them, read into conversations; no torch, no store.

rows.py         files into rows: JSON, JSON lines, CSV, Parquet, text
json_list.py    a JSON list as a stream
formats.py      which format a file is in, and how its rows become examples
messages.py     turns in OpenAI's and ShareGPT's way
pairs.py        prompt and completion, Alpaca, plain text
exports.py      what labelling tools write
read.py         read_records, read_examples: all of it together
stream.py       a source read again and again without being held in memory
mixture.py      several sources with weights and caps
training.py     what a checkpoint was tuned on
answers.py      what annotators answer, for each kind of task, and what that does to an example
rejects.py      refused rows, kept with the reason
fingerprint.py  hashes blind to case and white space
"""

from burnish.records.read import ExamplesRead, Records, read_examples, read_records
from burnish.records.rows import Reject
from burnish.records.training import training_prompts

__all__ = ["ExamplesRead", "Records", "Reject", "read_examples", "read_records", "training_prompts"]
