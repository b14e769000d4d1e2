"""What Sphinx is told: which parts of it we use, and that it asks nobody elsewhere."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from blockwright import __version__

project = "blockwright"
version = release = __version__
html_title = f"blockwright {__version__}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "docs.site.references"]
root_doc = "index"
nitpicky = True
smartquotes = False  # of options they would make dashes
highlight_language = "none"
myst_enable_extensions = ["deflist", "html_image"]
myst_heading_anchors = 6
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": list[str]()}  # there is no page of the source to show
