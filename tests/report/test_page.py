import base64
import gzip
import hashlib
import json
import math
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from making import HOSTILE, hostile_suspects, make_images, make_suspects, make_table

from diffident.auditing import audit
from diffident.errors import InputError
from diffident.report.building import AuditInput, Limits, Report, build_report
from diffident.report.charts import Table
from diffident.report.page import as_json, pack, render_page, write_page


def policy_of(page: str) -> str:
    return re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")


def test_json_cannot_end_its_element():
    text = as_json({"a": ["</script><!--", "&\u2028\u2029", math.nan, "\ud800"]})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": ["</script><!--", "&\u2028\u2029", None, "?"]}


def test_what_is_packed_can_be_read_again():
    assert json.loads(gzip.decompress(base64.b64decode(pack({"a": [1, "<"]})))) == {"a": [1, "<"]}


def test_the_policy_allows_what_is_in_the_page_and_nothing_else():
    policy = policy_of(render_page(Report("t")))
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    scripts = re.search(r"script-src ([^;]*);", policy)[1].split()
    assert all(source.startswith("'sha256-") for source in scripts)


def test_names_are_escaped_wherever_they_stand():
    table = Table(HOSTILE[0], HOSTILE[0], (HOSTILE[1],), ((HOSTILE[2],),), HOSTILE[3])
    report = Report(HOSTILE[0], ((HOSTILE[1], HOSTILE[2]),), (HOSTILE[0],), (table,), (), None, (HOSTILE[1],))
    page = render_page(report)
    assert "window.pwned" in page
    for text in HOSTILE[:4]:
        assert text not in page


def test_the_same_report_gives_the_same_page(tmp_path):
    suspects = make_suspects(20)
    images = make_images(suspects.table.ids)
    report = build_report(title="t", audit=AuditInput(suspects, None, images))
    assert write_page(report, tmp_path / "a.html") == (tmp_path / "a.html").stat().st_size
    write_page(build_report(title="t", audit=AuditInput(suspects, None, images)), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_without_anything_still_is_one():
    page = render_page(Report("nothing"))
    assert "<title>nothing</title>" in page
    assert 'id="samples"' not in page


def test_a_hostile_data_set_is_a_small_page():
    suspects, texts = hostile_suspects()
    page = render_page(build_report(title="t", audit=AuditInput(suspects, None, texts)))
    assert len(page) < 2_000_000
    body = page.partition("<body>")[2]
    assert "<img" not in body.partition('<script type="application/json"')[0]


def test_a_larger_data_set_is_cut_and_says_so():
    suspects = make_suspects(60)
    report = build_report(title="t", audit=AuditInput(suspects), limits=Limits(rows=20))
    assert len(report.samples["columns"]["id"]) == 20
    assert report.samples["total"] == 60
    assert "The page lists the 20 of 60 samples that matter most; `diffident serve` shows all." in report.notes


def test_a_label_that_is_no_class_number_is_refused():
    suspects = audit(make_table([0, -1], [0, 0], [1.0, 2.0]))
    with pytest.raises(InputError, match=r"^`label` must be in \[0, 100000\); got -1 at row 1 of the audit\."):
        build_report(title="t", audit=AuditInput(suspects))


@pytest.mark.parametrize(
    ("name", "value"), [("rows", 0), ("thumbnails", -1), ("megabytes", 1.0), ("megabytes", math.nan)]
)
def test_limits_that_leave_no_page_are_refused(name, value):
    with pytest.raises(InputError, match=f"^`{name}` must be at least "):
        Limits(**{name: value})


def test_the_bundle_is_the_one_that_the_tool_made():
    folder = resources.files("diffident.report") / "assets" / "vendor"
    about = json.loads((folder / "vendor.json").read_text(encoding="utf-8"))
    bundle = (folder / "vendor.min.js").read_bytes()
    assert hashlib.sha256(bundle).hexdigest() == about["sha256"]
    for name, version in about["packages"].items():
        assert f"{name} {version}\n".encode() in bundle  # its licence's title


def test_the_versions_are_those_that_the_tool_asks_for():
    folder = Path(__file__).parents[2] / "tools" / "report"
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    about = json.loads((resources.files("diffident.report") / "assets/vendor/vendor.json").read_text(encoding="utf-8"))
    assert wanted.items() <= about["packages"].items()


def test_marks_are_kept_for_the_samples_of_the_page():
    def key(suspects):
        page = render_page(build_report(title="t", audit=AuditInput(suspects)))
        return json.loads(re.search(r'id="settings"[^>]*>(.*?)</script>', page, re.DOTALL)[1])["key"]

    suspects = make_suspects()
    others = replace(suspects, table=replace(suspects.table, ids=suspects.table.ids + "x"))
    assert key(suspects) == key(suspects) != key(others)
