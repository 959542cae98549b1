"""Pages of the site that are made when it is built, and formulas without scripts.

The reference of commands comes from their parsers, that of Python from docstrings, by
mkdocstrings, and the first days from the notebooks. Formulas become MathML.
"""

import base64
import contextlib
import html
import importlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("common", "symphony", "equijump")
PROGRAMS = ("symphony", "equijump")
WIDTH = 100
"""Columns of the help of a command."""

_HEADLESS = "\n    options: {show_root_heading: false}"
"""Of a package on the page that has its name."""

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)
_DOCTEST = re.compile(r"^( *)>>> (?:.*\n?)(?:\1\S.*\n?)*", re.MULTILINE)
"""Lines of an example, to the next blank one."""

_DISPLAY = re.compile(r"^( *)([^\n$`]*)\$\$([^$`]+)\$\$ *", re.MULTILINE)
"""The indent of a line, what precedes a displayed formula on it, and the formula."""

_NOTEBOOK = re.compile(r"(\]\([\w/]+)\.ipynb\)")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")
"""A link to a file of the repository that is no page."""


class Doctests(griffe.Extension):
    """Shows examples of docstrings, which have no section of their own, as code."""

    def on_instance(self, *, obj: griffe.Object, **others: Any) -> None:
        if obj.docstring is not None:
            text = _DOCTEST.sub(_fenced, obj.docstring.value)
            obj.docstring.value = apart(text)


def _fenced(match: re.Match[str]) -> str:
    indent = match[1]
    return f"{indent}```pycon\n{match[0].rstrip()}\n{indent}```\n"


def apart(text: str) -> str:
    """Sets displayed formulas apart by blank lines, which Markdown asks for."""
    return _DISPLAY.sub(r"\1\2\n\n\1$$\3$$\n\n\1", text)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages of the packages to the navigation."""
    pages = [{name: f"api/{name}.md"} for name in modules()]
    config.nav.append({"Python": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here."""
    made: dict[str, str | bytes] = {"commands.md": commands()}
    for name, found in modules().items():
        parts = [f"# {name}", *(f"::: {m}{_HEADLESS * (m == name)}" for m in found)]
        made[f"api/{name}.md"] = "\n\n".join(parts)
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        made |= notebook(path)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **others: Any) -> str:
    """Points to the pages of notebooks, and to no file that the site has not."""
    return apart(_OUTSIDE.sub(r"\1", _NOTEBOOK.sub(r"\1.md)", markdown)))


def on_page_content(content: str, page: Page, **others: Any) -> str:
    """Turns formulas into MathML."""
    return _FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    return convert(html.unescape(match[2]).strip(), display=display)


def modules() -> dict[str, list[str]]:
    """Returns the modules of each package that has any, by the package's name."""
    found: dict[str, list[str]] = {}
    for path in sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = ".".join(parts[:-1])
        if parts[-1] == "__init__":
            found.setdefault(package, []).insert(0, package)
        elif not parts[-1].startswith("_"):
            found.setdefault(package, []).append(".".join(parts))
    return found


def commands() -> str:
    """Returns the page of all commands: what `--help` prints of each."""
    os.environ["COLUMNS"], os.environ["NO_COLOR"] = str(WIDTH), "1"
    parts = ["# Commands", "Every command of both models, as `--help` shows it."]
    for program in PROGRAMS:
        verbs = importlib.import_module(f"{program}.cli").VERBS
        parts.append(f"## {program}")
        for verb in verbs:
            main = importlib.import_module(f"{program}.{verb}").main
            text = io.StringIO()
            with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
                main(["--help"])
            parts += [f"### {program} {verb}", f"```text\n{text.getvalue()}```"]
    return "\n\n".join(parts)


def notebook(path: Path) -> dict[str, str | bytes]:
    """Returns the page of a notebook, and its pictures, by the names of the files."""
    folder = path.parent.name
    parts: list[str] = []
    files: dict[str, str | bytes] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        is_text = cell["cell_type"] == "markdown"
        parts.append(source if is_text else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            picture = output.get("data", {}).get("image/png")
            if picture:
                name = f"{path.stem}_{len(files)}.png"
                files[f"{folder}/{name}"] = base64.b64decode("".join(picture))
                parts.append(f"![Output]({name})")
            elif "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
    return files | {f"{folder}/{path.stem}.md": "\n\n".join(parts)}
