"""Parsers by format. A new format is a module and a line here, and its recognition in `formats`."""

REGISTRY = {
    "docx": "services.preprocess.adapters.kreuzberg:DocxParser",
    "html": "services.preprocess.adapters.selectolax:HtmlParser",
    "md": "services.preprocess.adapters.markdown:MarkdownParser",
    "pdf": "services.preprocess.adapters.pdfium:PdfParser",
    "txt": "services.preprocess.adapters.plain:PlainParser",
}
"""Format -> the class that parses it."""
