"""Every relative link of every document leads somewhere, and the documents know each other."""

import re
import tomllib
from pathlib import Path

import pytest

from notifyd import __version__
from tests.kit.markdown import Link, read_anchors, read_links

ROOT = Path(__file__).parent.parent
FOLDERS = ("spec", "tests", "notifyd", "protocol")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def broken(document: Path, link: Link) -> str | None:
    """Say what is wrong with a link; None when it leads somewhere, or out of this project."""
    if "://" in link.target or link.target.startswith("mailto:"):
        return None
    path, _, anchor = link.target.partition("#")
    target = (document.parent / path).resolve() if path else document
    if not target.exists():
        return f"{name(document)}:{link.line}: there is no {path}"
    if not target.is_relative_to(ROOT):
        return f"{name(document)}:{link.line}: {path} is outside of the project"
    if anchor and anchor not in read_anchors(target.read_text(encoding="utf-8")):
        return f"{name(document)}:{link.line}: {name(target)} has no heading for #{anchor}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    complaints = [broken(document, link) for link in read_links(document.read_text(encoding="utf-8"))]
    assert [complaint for complaint in complaints if complaint] == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, to_read = set(), [ROOT / "README.md"]
    while to_read:
        document = to_read.pop()
        reached.add(document)
        links = read_links(document.read_text(encoding="utf-8"))
        targets = {(document.parent / link.target.partition("#")[0]).resolve() for link in links}
        to_read += [path for path in targets - reached if path.suffix == ".md" and path.exists()]
    assert [name(path) for path in DOCUMENTS if path not in reached] == []


def test_the_changelog_knows_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = re.findall(r"^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (versions[0], project["version"]) == (__version__, __version__)
