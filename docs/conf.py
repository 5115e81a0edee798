"""Sphinx's settings for these pages: `make docs`. Warnings and dead links are errors."""

import re
from importlib import metadata

project = "Basilar"
release = metadata.version("basilar")
copyright = "The Basilar authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"Basilar {release}"
# The source is the repository, so that links to README and CONTRIBUTING are links here, too.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*"]
exclude_patterns = ["docs/_build"]
suppress_warnings = ["misc.highlighting_failure"]  # Mermaid, which GitHub draws
default_role = "code"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["torch"]
add_module_names = False


def escaped(app, what, name, obj, options, lines):
    """Escape markup: docstrings are plain text with code in backticks."""
    for i, line in enumerate(lines):
        if not line.startswith((" ", ">>>", "...")):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"([|*_](?!\s))", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app):
    """Register the above."""
    app.connect("autodoc-process-docstring", escaped)
