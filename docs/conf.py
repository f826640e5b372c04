"""How Sphinx makes the site: `make docs`.

Its sources are the repository's own pages where they lie, so every link is the same on the site
and in the repository. Between the comments ``<!-- generated: … -->`` and ``<!-- end -->`` reference
pages say how to get what :mod:`generated` puts there from the code at build time.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import generated

from reddit_assets import __version__

project = "reddit_assets"
author = "the reddit_assets authors"
version = release = __version__

extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "deploy/**.md", "models/README.md"]
exclude_patterns = [".*", "site", "demo*", "**/node_modules"]
myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 4
smartquotes = False
highlight_language = "none"

html_theme = "furo"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#a8380a", "color-brand-content": "#a8380a"},
    "dark_css_variables": {"color-brand-primary": "#ff9d73", "color-brand-content": "#ff9d73"},
}
html_title = f"reddit_assets {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# The menu. Each page of the site stands here once; a page that does not fails the build.
CONTENTS = {
    "Start": ["docs/getting-started", "docs/concepts"],
    "How to": [
        "docs/howto/workers",
        "docs/howto/gpu",
        "docs/howto/failed-files",
        "docs/howto/nightly",
        "docs/howto/monitoring",
        "Use public dumps <docs/ingest>",
        "docs/howto/models",
        "docs/howto/vectors",
        "docs/howto/million-files",
        "Deploy it <deploy/README>",
        "docs/howto/migrate",
        "docs/howto/troubleshooting",
    ],
    "Reference": [
        "docs/reference/commands",
        "docs/reference/settings",
        "docs/reference/metrics",
        "docs/wire-format",
        "models/README",
    ],
    "Explanation": [
        "docs/embedding",
        "docs/clustering",
        "docs/dagster",
        "docs/reliability",
        "docs/performance",
        "Large trees <docs/scale>",
        "docs/security",
        "Architecture and decisions <docs/architecture>",
        "CHANGELOG",
    ],
}


def _contents() -> str:
    """The menu as Sphinx wants it: hidden lists of pages at the end of the first page."""
    return "".join(
        f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
        for caption, pages in CONTENTS.items()
    )


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    """Fills what is generated into a page's text."""
    source[0] = re.sub(
        r"^<!-- generated: (\w+) -->$.*?^<!-- end -->$",
        lambda found: generated.PARTS[found[1]](),
        source[0],
        flags=re.MULTILINE | re.DOTALL,
    )
    if page == root_doc:
        source[0] += _contents()


def _link_names(app: Sphinx, page: nodes.document, name: str) -> None:
    """Links each setting and command that a text names to its entry in the reference."""
    for literal in list(page.findall(nodes.literal)):
        target = generated.entry_of(literal.astext())
        if target is None or isinstance(literal.parent, nodes.reference):
            continue
        where, anchor = target
        if name == where:
            continue
        link = nodes.reference(
            refuri=f"{app.builder.get_relative_uri(name, where)}#{anchor}", internal=True
        )
        literal.replace_self(link)
        link += literal


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("doctree-resolved", _link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
