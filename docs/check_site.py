"""Check the built site: it loads nothing from the network, and describes every public name.

Usage: python docs/check_site.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from docstrings import list_public_objects  # type: ignore[import-not-found]

# Elements that a browser loads without a click, and the attribute with the address.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
LINKS_TO_PAGES = {"next", "prev", "search", "index", "author"}  # <link> elements that load nothing


class _Resources(HTMLParser):
    """The addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        address = attributes.get(LOADED.get(tag, ""))
        if address and attributes.get("rel") not in LINKS_TO_PAGES:
            self.addresses.append(address)


def find_problems(folder: Path) -> Iterator[str]:
    """Yield a line for each problem of the site."""
    for page in sorted(folder.rglob("*.html")):
        resources = _Resources()
        resources.feed(page.read_text("utf-8"))
        for address in resources.addresses:
            if address.startswith(("http:", "https:", "//")):
                yield f"{page.relative_to(folder)} loads {address}"
    for name, _ in list_public_objects():
        if not (folder / "reference_pages" / "api" / f"{name}.html").exists():
            yield f"{name} has no page"
    if not (folder / "searchindex.js").exists():
        yield "the search has no index"


def main() -> int:
    """Print the problems; return 1 if there are any."""
    problems = list(find_problems(Path(sys.argv[1])))
    print("\n".join(problems) or "the site is complete and loads nothing from the network")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
