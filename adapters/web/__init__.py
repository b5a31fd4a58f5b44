"""The web: files that callers name by URL, and search engines."""

from adapters.web.fetcher import HttpFetcher
from adapters.web.search import HttpSearch, search_for

__all__ = ["HttpFetcher", "HttpSearch", "search_for"]
