"""Reading docstrings: from Python files to documents, from documents to paragraphs of prose."""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Tests say little in English, and other people's code would be counted for the library that ships it.
_SKIPPED_FOLDERS = re.compile(
    r"tests?|idlelib|turtledemo|lib2to3|ensurepip|(site|dist)-packages|__pycache__|_vendor|externals"
    r"|array_api_(compat|extra)|cobyqa|pyprima"
)


_TOPIC_PAGES = "pydoc_data/topics.py"  # what `help("assert")` shows: the language reference, as one dict of strings


class Document(NamedTuple):
    """A docstring or a topic page, without its indentation."""

    module: str  # "scipy/stats/_morestats.py", "asyncio/events.py"
    name: str  # of the documented object: "Class.method"; "" for the module itself
    text: str


def python_files(folder: Path) -> Iterator[Path]:
    """The Python files below a folder, in an order that does not depend on the file system."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            yield path
        elif path.is_dir() and not _SKIPPED_FOLDERS.fullmatch(path.name):
            yield from python_files(path)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def documents_of(path: Path, module: str) -> Iterator[Document]:
    """The docstrings of a Python file in their order, and documentation that the file holds as other strings.

    Raises:
      SyntaxError: the file is not of this version of Python; the message names it.
    """
    source = path.read_text(encoding="utf-8", errors="replace")
    if '"""' not in source and "'''" not in source and module != _TOPIC_PAGES:
        return  # a fifth of all files, spared the parser
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in other people's strings
        stack: list[tuple[ast.AST, str]] = [(ast.parse(source, str(path)), "")]
    while stack:
        node, name = stack.pop()
        if isinstance(node, _DOCUMENTED):
            if not isinstance(node, ast.Module):
                name = f"{name}.{node.name}" if name else node.name
            docstring = ast.get_docstring(node)
            if docstring:
                yield Document(module, name, docstring)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _attached_documents(node.value, module)
        elif isinstance(node, ast.Assign) and module == _TOPIC_PAGES:
            for topic, page in ast.literal_eval(node.value).items():
                yield Document(module, topic, inspect.cleandoc(page))
        if isinstance(node, (*_DOCUMENTED, ast.If, ast.Try)):
            stack.extend((child, name) for child in reversed(node.body))


def _attached_documents(call: ast.Call, module: str) -> Iterator[Document]:
    """What `add_newdoc(module, "name", ("method", "docstring"))` says about an object that is written in C."""
    if isinstance(call.func, ast.Name) and call.func.id.startswith("add_newdoc"):
        strings = [
            node.value for node in ast.walk(call) if isinstance(node, ast.Constant) if isinstance(node.value, str)
        ]
        names = [string for string in strings if string.isidentifier()]
        for string in strings:
            if " " in string.strip():
                yield Document(module, ".".join(names), inspect.cleandoc(string))


_UNDERLINE = re.compile(r"([-=~^*#\"'+])\1{2,}\s*$")


PARAMETER = re.compile(r"\*{0,2}\w+(, \*{0,2}\w+)* : ")  # "axis : int, optional", the description below it


_ITEM = re.compile(
    r"([-*+]|\d+[.)]|\.\.|:[^:`]+:|\*{0,2}\w+( \([^)]*\))?:) "
)  # "- ", "1. ", ".. ", ":param x: ", "x (int): "


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"(])")


def paragraphs(text: str) -> list[str]:
    """The paragraphs, headings and items of a docstring, each on one line.

    A new one starts after a blank line, with an item of a list, and where the indentation changes; the further lines of
    an item may be indented.
    """
    found: list[str] = []
    lines: list[str] = []
    indent = 0
    for line in [*text.splitlines(), ""]:
        stripped = line.lstrip()
        ends = not stripped or _UNDERLINE.match(stripped) is not None
        if lines:
            deeper = len(line) - len(stripped) - indent
            hangs = deeper > 0 and len(lines) == 1 and _ITEM.match(lines[0])
            if ends or _ITEM.match(stripped) or not (deeper == 0 or hangs):
                found.append(" ".join(" ".join(lines).split()))
                lines = []
        if not ends:
            lines.append(stripped)
            indent = len(line) - len(stripped)
    return found


def sentences(paragraph: str) -> list[str]:
    """A paragraph cut where a full stop, question or exclamation mark is followed by a capital or a quotation."""
    return _SENTENCE_END.split(paragraph)


_FUNCTION_WORD = re.compile(
    r"an?|all|and|any|are|as|at|be|but|by|can|do|does|each|else|for|from|had|has|have|if|in|into|is|its?|may|must|no|not"
    r"|of|on|one|only|or|other|shall|should|than|that|the|their|then|these|this|those|to|used|was|when|where|whether"
    r"|which|while|will|with"
)


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is English sentences, rather than code, a table, a formula, a list of names or a reference.

    A fifth of its words must be function words (in running English it is two fifths), seven tenths plain words.
    """
    if ">>>" in paragraph or "://" in paragraph or paragraph.startswith(".."):
        return False
    words = [word.strip(".,;:!?()[]\"'`*").lower() for word in paragraph.split()]
    plain = sum(word.replace("-", "").replace("'", "").isalpha() for word in words)
    function_words = sum(_FUNCTION_WORD.fullmatch(word) is not None for word in words)
    return plain >= 0.7 * len(words) and function_words >= 0.2 * len(words)
