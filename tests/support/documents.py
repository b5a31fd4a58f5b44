"""Documents for tests, made here: PDFs with structure, office files, and all kinds of bad ones.

``python -m tests.support.documents PATH.pdf`` writes the report of the demo's tour.
"""

from __future__ import annotations

import random
import sys
import zipfile
from pathlib import Path

from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import (
    BaseDocTemplate,
    Frame,
    FrameBreak,
    ListFlowable,
    ListItem,
    PageBreak,
    PageTemplate,
    Paragraph,
    SimpleDocTemplate,
    Table,
)

STYLES = getSampleStyleSheet()

REPORT_TITLE = "Harbour Light Annual Report 2025"
REPORT = [
    (
        "1 The station",
        [
            (
                "1.1 Location and crew",
                [
                    (
                        "Harbour Light stands on the island of Skarholm, 14 kilometres off the "
                        "coast. Seven keepers live there, led by Ingrid Solheim, "
                        "who came in March 2019."
                    ),
                    (
                        "The supply boat Tern crosses every second Tuesday. In winter it was held "
                        "back by storms on nine days, more than in any year since 1987."
                    ),
                ],
                [],
            ),
            (
                "1.2 Equipment",
                [
                    (
                        "The lamp was replaced in May 2025 by an LED array of 480 watts. It is "
                        "seen for 23 nautical miles and saves 61 percent of the energy "
                        "of the old lamp."
                    )
                ],
                [
                    "Two diesel generators of 30 kilowatts, serviced in August.",
                    "A solar field of 96 panels on the south roof.",
                    "A desalination unit that makes 900 litres of water a day.",
                ],
            ),
        ],
    ),
    (
        "2 Operations",
        [
            (
                "2.1 Traffic",
                [
                    (
                        "The station counted 12,480 ships in 2025. Tankers were 18 percent of "
                        "them, ferries 35 percent and fishing boats the rest."
                    ),
                    "The busiest day was 4 July with 96 passages, during the regatta of Norvik.",
                ],
                [],
            ),
            (
                "2.2 Incidents",
                ["Three incidents were reported, and nobody was hurt."],
                [
                    "On 11 February the trawler Marta lost its rudder and was towed to Norvik.",
                    "On 2 June the fog signal failed for 40 minutes because of a corroded relay.",
                    "On 19 October a drone crashed into the north railing.",
                ],
            ),
        ],
    ),
    (
        "3 Finances",
        [
            (
                "3.1 Costs",
                [
                    (
                        "The station cost 2.4 million crowns in 2025, 6 percent less than the year "
                        "before. Most of the saving comes from diesel, of which 21,000 litres were "
                        "burnt instead of 38,000."
                    )
                ],
                [],
            ),
            (
                "3.2 Plans",
                [
                    (
                        "A wind turbine of 50 kilowatts is planned for 2027. The board has set "
                        "aside 850,000 crowns for it and asked the firm Vindkraft Nord "
                        "for an offer."
                    )
                ],
                [],
            ),
        ],
    ),
]
"""Chapters of sections: a heading, paragraphs, items of a list."""

_WORDS = [
    "gateway",
    "object",
    "store",
    "retrieval",
    "worker",
    "vector",
    "file",
    "chunk",
    "document",
    "filter",
    "metadata",
    "parser",
    "index",
    "query",
    "answer",
    "model",
    "token",
    "stream",
    "cluster",
    "network",
]


def make_report_pdf(path: Path) -> Path:
    """A few pages with headings, lists, a table and facts that one can ask about."""
    story = [Paragraph(REPORT_TITLE, STYLES["Title"])]
    for chapter, sections in REPORT:
        story.append(Paragraph(chapter, STYLES["Heading1"]))
        for heading, paragraphs, items in sections:
            story.append(Paragraph(heading, STYLES["Heading2"]))
            story.extend(Paragraph(text, STYLES["BodyText"]) for text in paragraphs)
            story.extend([_bullets(items)] if items else [])
        story.append(PageBreak())
    story.append(Paragraph("4 Figures", STYLES["Heading1"]))
    story.append(
        Table(
            [
                ["Quarter", "Ships", "Diesel in litres"],
                ["First", "2100", "7400"],
                ["Second", "3650", "5200"],
                ["Third", "4230", "3100"],
                ["Fourth", "2500", "5300"],
            ],
            colWidths=[150, 100, 150],
        )
    )
    SimpleDocTemplate(str(path), pagesize=A4, title=REPORT_TITLE).build(
        story, onFirstPage=_furniture, onLaterPages=_furniture
    )
    return path


def make_long_pdf(path: Path, pages: int, seed: int = 1) -> Path:
    """About so many pages of text, five paragraphs under each heading."""
    luck = random.Random(seed)
    story = []
    for page in range(pages):
        story.append(Paragraph(f"{page + 1} Chapter on {luck.choice(_WORDS)}", STYLES["Heading1"]))
        story.extend(Paragraph(_words(luck, 90), STYLES["BodyText"]) for _ in range(5))
        story.append(PageBreak())
    SimpleDocTemplate(str(path), pagesize=A4).build(
        story, onFirstPage=_furniture, onLaterPages=_furniture
    )
    return path


def make_two_column_pdf(path: Path, parts: int = 6) -> Path:
    """A title over both columns; paragraphs begin with their number: ``P0``, ``P1`` …"""
    luck = random.Random(2)
    width, height = A4
    frames = [
        Frame(50, height - 140, width - 100, 90),
        Frame(50, 50, 240, height - 200),
        Frame(width - 290, 50, 240, height - 200),
    ]
    story = [Paragraph("A Paper in two Columns about Gateways", STYLES["Title"]), FrameBreak()]
    for part in range(parts):
        story.append(Paragraph(f"{part + 1} Part number {part + 1}", STYLES["Heading2"]))
        story.append(Paragraph(f"P{part} {_words(luck, 75)}", STYLES["BodyText"]))
    document = BaseDocTemplate(str(path), pagesize=A4)
    document.addPageTemplates([PageTemplate("two", frames)])
    document.build(story)
    return path


def make_encrypted_pdf(path: Path, *, password: str = "open sesame") -> Path:
    """With an empty ``password`` anybody may open it, and only printing is forbidden."""
    guard = StandardEncryption(password, "owner", canPrint=0, strength=128)
    SimpleDocTemplate(str(path), pagesize=A4, encrypt=guard).build(
        [Paragraph("Nobody may print this sentence.", STYLES["BodyText"])]
    )
    return path


def make_scanned_pdf(path: Path) -> Path:
    """A page that is a picture."""
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path), pagesize=A4)
    canvas.drawInlineImage(make_picture(), 50, 400, 400, 200)
    canvas.showPage()
    canvas.save()
    return path


def make_truncated_pdf(path: Path) -> Path:
    """Cut off after its first quarter."""
    whole = make_long_pdf(path, 4).read_bytes()
    path.write_bytes(whole[: len(whole) // 4])
    return path


def make_picture(text: str = "Seven keepers live here"):
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (800, 400), "white")
    font = ImageFont.load_default(48)
    ImageDraw.Draw(picture).text((40, 150), text, fill="black", font=font)
    return picture


def make_docx(path: Path) -> Path:
    import docx

    document = docx.Document()
    document.add_heading("Harbour Light", 0)
    document.add_heading("Crew", 1)
    document.add_paragraph("Seven keepers live on the island.")
    document.add_paragraph("Ingrid leads them.", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for row, texts in enumerate((("Name", "Years"), ("Ingrid", "6"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    document.save(str(path))
    return path


def make_pptx(path: Path) -> Path:
    import pptx

    slides = pptx.Presentation()
    slide = slides.slides.add_slide(slides.slide_layouts[1])
    slide.shapes.title.text = "Harbour Light"
    slide.placeholders[1].text = "Seven keepers live on the island."
    slides.save(str(path))
    return path


def make_xlsx(path: Path) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (("Quarter", "Ships"), ("First", 2100), ("Second", 3650)):
        book.active.append(row)
    book.save(str(path))
    return path


def make_bomb(path: Path, unpacked: int = 32 * 1024 * 1024) -> Path:
    """A docx that unpacks to far more than it is."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", b"\0" * unpacked)
    return path


def make_damaged_docx(path: Path) -> Path:
    whole = make_docx(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def _bullets(items):
    paragraphs = [ListItem(Paragraph(item, STYLES["BodyText"])) for item in items]
    return ListFlowable(paragraphs, bulletType="bullet")


def _words(luck: random.Random, count: int) -> str:
    words = [luck.choice(_WORDS) for _ in range(count)]
    return " ".join(words).capitalize() + "."


def _furniture(canvas, document) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 8)
    canvas.drawString(60, 820, "Skarholm lighthouse service")
    canvas.drawString(290, 20, f"Page {document.page}")
    canvas.restoreState()


if __name__ == "__main__":
    make_report_pdf(Path(sys.argv[1]))
