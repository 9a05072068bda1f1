"""The tensor parts that stages share: batches, attention, loss, the step, models on disk."""
