"""The documents that tests read: their text, code blocks, links and anchors."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def name_of(document: Path) -> str:
    """Return a document's path from the root of the project."""
    return document.relative_to(ROOT).as_posix()


FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", flags=re.DOTALL | re.MULTILINE)


def blocks(document: Path, language: str) -> list[str]:
    """Return the document's code blocks in a language."""
    return blocks_of(document.read_text(), language)


def blocks_of(text: str, language: str) -> list[str]:
    """Return the code blocks of a text in a language, without the indentation of the list that they are in."""
    return [textwrap.dedent(block) for _, name, block in FENCE.findall(text) if name == language]


def prose(document: Path) -> str:
    """Return the document without its code blocks."""
    return FENCE.sub("", document.read_text())


def links(document: Path) -> list[str]:
    """Return the targets of the document's Markdown links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(document))


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to the document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def table(document: Path, first_column: str) -> list[list[str]]:
    """Return the rows of the table whose first column has that heading, each as a list of cells."""
    found = re.search(
        rf"^\| {re.escape(first_column)} \|.*\n\|[-| :]+\|\n((?:\|.*\n)+)", document.read_text(), re.MULTILINE
    )
    assert found, f"{name_of(document)} has no table that begins with {first_column}"
    return [[cell.strip() for cell in row.strip().strip("|").split(" | ")] for row in found[1].splitlines()]


def code_names(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)
