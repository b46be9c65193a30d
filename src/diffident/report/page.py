"""The page: one HTML file with everything in it, which loads nothing and runs nothing but its own scripts.

Whatever comes from a data set is text: Jinja escapes it in the markup, `as_json` in the data, and the scripts only ever
set text. The Content-Security-Policy allows exactly the scripts and styles in the page, by their hashes, and no
connection; where browsers know Trusted Types, markup cannot be made from strings at all.
"""

import base64
import dataclasses
import gzip
import hashlib
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import diffident
from diffident.report.building import Report
from diffident.report.charts import table_of_chart
from diffident.storage.atomic import write_text

_SCRIPTS = (
    "vendor/vendor.min.js",
    "dom.js",
    "local_source.js",
    "remote_source.js",
    "virtual_list.js",
    "tiles.js",
    "filters.js",
    "detail.js",
    "gallery.js",
    "charts.js",
    "main.js",
)
# The style that Observable Plot puts into each of its drawings; its class name is fixed in charts.js, so it has a hash.
_PLOT_STYLE = (
    ":where(.plot) {\n  --plot-background: white;\n  display: block;\n  height: auto;\n  height: intrinsic;\n"
    "  max-width: 100%;\n}\n:where(.plot text),\n:where(.plot tspan) {\n  white-space: pre;\n}"
)


def write_page(report: Report, path: str | Path) -> int:
    """Write the page, atomically; its size in bytes."""
    text = render_page(report)
    write_text(path, text)
    return len(text.encode("utf-8"))


def render_page(report: Report, *, connect: str | None = None, extra: Mapping[str, Any] | None = None) -> str:
    """The page as text.

    Args:
        report: What it shows.
        connect: Source that it may fetch from, for `diffident serve`; None forbids every connection.
        extra: Further entries of the page's settings.
    """
    scripts = [_asset(name) for name in _SCRIPTS]
    style = _asset("page.css")
    settings = {"charts": [dataclasses.asdict(chart) for chart in report.charts], **(extra or {})}
    samples = {} if report.samples is None else dict(report.samples)
    pictures = samples.pop("pictures", None)
    if report.samples is not None:  # marks are kept by it, as the places of these samples
        settings["key"] = hashlib.sha256(json.dumps(samples["columns"]["id"]).encode()).hexdigest()[:16]
    return _template().render(
        report=report,
        chart_tables=[table_of_chart(chart) for chart in report.charts],
        policy=_policy(scripts, style, connect),
        scripts=[Markup(script) for script in scripts],
        style=Markup(style),
        settings=as_json(settings),
        samples=None if report.samples is None else pack(samples),
        live="live" in (extra or {}),
        pictures=None if pictures is None else as_json(pictures),
        version=diffident.__version__,
    )


def as_json(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment; NaN is null."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A lone surrogate, which a file name can hold, has no UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def pack(value: Any) -> str:
    """JSON, compressed, in base64: the same value gives the same text."""
    return base64.b64encode(gzip.compress(str(as_json(value)).encode("utf-8"), mtime=0)).decode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _policy(scripts: list[str], style: str, connect: str | None) -> str:
    allowed = " ".join(_hash(script) for script in scripts)
    parts = [
        "default-src 'none'",
        f"script-src {allowed}",
        f"style-src {_hash(style)} {_hash(_PLOT_STYLE)}",
        f"img-src data: {connect or ''}".strip(),
        f"connect-src {connect or chr(39) + 'none' + chr(39)}",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
    return "; ".join(parts)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _asset(name: str) -> str:
    return (resources.files("diffident.report") / "assets" / name).read_text(encoding="utf-8")


def _template():
    environment = Environment(
        loader=PackageLoader("diffident.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
