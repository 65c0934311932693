from __future__ import annotations

from tests.helpers.store import clock, kind, postgres, store_url

__all__ = ["clock", "kind", "postgres", "store_url"]
