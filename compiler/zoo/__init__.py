"""Models that sqzc knows by name: what is published about them, and finding or fetching their files."""

from sqzc.zoo.lookup import FoundFile, ZooModel, default_cache_dir, find
from sqzc.zoo.manifest import FileEntry, InputEntry, ModelEntry, published
from sqzc.zoo.search import search_path

__all__ = [
    "FileEntry",
    "FoundFile",
    "InputEntry",
    "ModelEntry",
    "ZooModel",
    "default_cache_dir",
    "find",
    "published",
    "search_path",
]
