from __future__ import annotations

from tests.helpers.store import clock, empty_url, kind, own_url, postgres, sqlite_store, store, store_url

__all__ = ["clock", "empty_url", "kind", "own_url", "postgres", "sqlite_store", "store", "store_url"]
