"""Settings of Sphinx: the reference comes from the docstrings."""

project = "ndquant"
extensions = ["sphinx.ext.autodoc", "numpydoc", "myst_parser"]
html_theme = "alabaster"
html_theme_options = {"description": "Quantization for NumPy, with a C core", "page_width": "1100px"}
html_show_sourcelink = False
autodoc_typehints = "none"
numpydoc_show_class_members = False
