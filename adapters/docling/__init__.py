"""Docling: documents to structured text and chunks.

``local`` is the port on this machine and ``remote`` on a docling-serve; ``pool`` has the processes
that both use, ``worker`` is what runs in them. Nothing here imports docling but what runs there.
"""

from adapters.docling.local import DoclingConverter
from gateway.ports import DocumentConverter
from gateway.settings import DocumentSettings, IngestionSettings

__all__ = ["DoclingConverter", "converter_for"]


def converter_for(documents: DocumentSettings, ingestion: IngestionSettings) -> DocumentConverter:
    """The one that ``documents.converter`` names. It starts nothing before its first file."""
    if documents.converter == "docling-serve":
        from adapters.docling.remote import DoclingServeConverter  # no HTTP in the processes

        return DoclingServeConverter(documents, ingestion)
    return DoclingConverter(documents, ingestion)
