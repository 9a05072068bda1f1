"""Records in: from files, folders, globs and URLs into the store, each one once."""

from burnish.collect.collect import CollectConfig, CollectResult, SourceResult, collect

__all__ = ["CollectConfig", "CollectResult", "SourceResult", "collect"]
