"""The tensor parts that stages share: batches, attention, loss, the step, models on disk."""

import os

# oneDNN keeps the code it makes for each shape of a matrix product, about 20 MB for each new size
# of a batch: over the hundreds of sizes of a run that was 2 GB. A step needs some hundred of them.
# Read once, when the first product runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")
