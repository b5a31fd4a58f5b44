"""A DoclingDocument of what the light layout has found. Needs docling-core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from docling_core.types.doc import (
    BoundingBox,
    ContentLayer,
    CoordOrigin,
    DocItemLabel,
    DoclingDocument,
    ListGroup,
    ProvenanceItem,
    Size,
    TableCell,
    TableData,
    TextItem,
)

from adapters.docling.layout import Block, PageLines

__all__ = ["build"]

_FURNITURE = {
    "page_header": DocItemLabel.PAGE_HEADER,
    "page_footer": DocItemLabel.PAGE_FOOTER,
}


def build(filename: str, pages: Sequence[PageLines], blocks: Sequence[Block]) -> DoclingDocument:
    """The document with a page number and a box for each item."""
    document = DoclingDocument(name=PurePath(filename).stem)
    for page in pages:
        document.add_page(page_no=page.number, size=Size(width=page.width, height=page.height))
    group: ListGroup | None = None
    last: TextItem | None = None
    for block in blocks:
        if block.label in _FURNITURE:
            document.add_text(
                label=_FURNITURE[block.label],
                text=block.text,
                prov=_provenance(block),
                content_layer=ContentLayer.FURNITURE,
            )
            continue
        if block.continues and last is not None:
            _continue(last, block)
            continue
        if block.label != "list_item":
            group = None
        elif group is None:
            group = document.add_list_group()
        last = _add(document, block, group)
    return document


def _continue(item: TextItem, block: Block) -> None:
    """Goes on in a paragraph that a page or a column has cut, with a second place."""
    start = len(item.text) + 1
    hyphenated = item.text.endswith("-") and item.text[-2:-1].isalpha()
    item.text = item.text[:-1] + block.text if hyphenated else f"{item.text} {block.text}"
    item.orig = item.text
    prov = _provenance(block)
    prov.charspan = (min(start, len(item.text)), len(item.text))
    item.prov.append(prov)


def _add(document: DoclingDocument, block: Block, group: ListGroup | None) -> TextItem | None:
    """The item, where it has text that can go on."""
    prov = _provenance(block)
    if block.label == "title":
        return document.add_title(text=block.text, prov=prov)
    if block.label == "heading":
        return document.add_heading(text=block.text, level=block.level, prov=prov)
    if block.label == "list_item":
        numbered = block.marker[-1:] in {".", ")"}
        return document.add_list_item(
            text=block.text,
            enumerated=numbered,
            marker=block.marker if numbered else "-",
            parent=group,
            prov=prov,
        )
    if block.label == "table":
        document.add_table(data=_table(block.rows), prov=prov)
        return None
    return document.add_text(label=DocItemLabel.TEXT, text=block.text, prov=prov)


def _provenance(block: Block) -> ProvenanceItem:
    box = BoundingBox(
        l=block.left,
        t=block.top,
        r=block.right,
        b=block.bottom,
        coord_origin=CoordOrigin.TOPLEFT,
    )
    return ProvenanceItem(page_no=block.page, bbox=box, charspan=(0, len(block.text)))


def _table(rows: list[list[str]]) -> TableData:
    cells = [
        TableCell(
            text=text,
            start_row_offset_idx=row,
            end_row_offset_idx=row + 1,
            start_col_offset_idx=column,
            end_col_offset_idx=column + 1,
            column_header=row == 0,
        )
        for row, texts in enumerate(rows)
        for column, text in enumerate(texts)
    ]
    return TableData(num_rows=len(rows), num_cols=len(rows[0]), table_cells=cells)
