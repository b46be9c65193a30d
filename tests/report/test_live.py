import io
import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import make_blobs, make_images, make_suspects, make_table, make_texts, write_audit_folder

from diffident.auditing import audit
from diffident.cli import build_parser, main
from diffident.cli.common import print_json
from diffident.cli.serve import open_server
from diffident.errors import InputError
from diffident.records import Features
from diffident.report.building import AuditInput, Report
from diffident.report.live import MOST_ROWS, Criteria, LiveSamples, natural_key
from diffident.report.marks import Marks, marks_csv
from diffident.report.server import PageServer
from diffident.storage.features import save_features


def make_live(tmp_path, count: int = 60, dataset=None, features=None) -> LiveSamples:
    suspects = make_suspects(count)
    dataset = dataset or make_images(suspects.table.ids)
    return LiveSamples(AuditInput(suspects, features, dataset), Marks(tmp_path / "marks.jsonl", suspects.table.ids))


def chosen(live: LiveSamples, **criteria) -> list[int]:
    found = live.select(criteria)
    rows = live.rows(found["view"], 0, found["count"])
    return [row["row"] for row in rows]


@pytest.mark.parametrize(
    ("criteria", "wanted"),
    [
        ({"given": 1}, lambda t, r: t.labels[r] == 1),
        ({"nearest": 1}, lambda t, r: t.nearest_labels[r] == 1),
        ({"either": 1}, lambda t, r: 1 in (t.labels[r], t.nearest_labels[r])),
        ({"low": 0}, lambda t, r: t.difficulty[r] >= 0),
        ({"high": -1.5}, lambda t, r: t.difficulty[r] <= -1.5),
        ({"suspects": True}, lambda t, r: t.margin[r] > 0),
        ({"text": "S0001 7"}, lambda t, r: t.ids[r] == "s00017"),
        ({"text": "2"}, lambda t, r: "2" in t.ids[r] or 2 in (t.labels[r], t.nearest_labels[r])),
    ],
)
def test_each_filter_keeps_what_it_says(tmp_path, criteria, wanted):
    live = make_live(tmp_path)
    kept = [row for row in range(60) if wanted(live.table, row)]
    assert 0 < len(kept) < 60
    assert sorted(chosen(live, **criteria)) == kept


def test_each_order_is_what_it_says(tmp_path):
    live = make_live(tmp_path)
    table, wrong = live.table, live.audit.suspects.probability_wrong
    keys = {
        "hardest": lambda r: -table.difficulty[r],
        "easiest": lambda r: table.difficulty[r],
        "margin": lambda r: (-table.margin[r], -table.difficulty[r]),
        "wrong": lambda r: (-wrong[r], -table.difficulty[r]),
        "row": lambda r: r,
        "id": lambda r: table.ids[r],
    }
    for sort, key in keys.items():
        assert chosen(live, sort=sort) == sorted(range(60), key=key)


def test_numbers_in_ids_count_as_numbers(tmp_path):
    ids = ["img10", "img2", "IMG1", "²", "a"]
    table = make_table([0, 1, 0, 1, 0], [0, 1, 0, 1, 0], [1, 2, 3, 4, 5], ids=ids)
    live = LiveSamples(AuditInput(audit(table)), Marks(tmp_path / "m", table.ids))
    assert [ids[row] for row in chosen(live, sort="id")] == ["a", "IMG1", "img2", "img10", "²"]


@given(st.lists(st.text("aB0019_-. é²", max_size=8) | st.from_regex(r"[01]{17,38}", fullmatch=True), max_size=20))
def test_ids_are_ordered_as_their_words_and_numbers(ids):
    def parts(text):
        found = re.findall(r"[0-9]{1,18}|[^0-9]+", text.lower())
        return [(True, int(part), "") if part[0] in "0123456789" else (False, 0, part) for part in found]

    assert sorted(ids, key=natural_key) == sorted(ids, key=parts)


def test_what_is_prepared_is_what_would_be_found(tmp_path):
    prepared, asked = make_live(tmp_path), make_live(tmp_path)
    prepared.prepare()
    for sort in ("hardest", "easiest", "wrong", "margin", "row", "id"):
        for criteria in ({}, {"given": 1}, {"text": "2"}):
            assert chosen(prepared, sort=sort, **criteria) == chosen(asked, sort=sort, **criteria)


def test_texts_are_searched_and_shown(tmp_path):
    table = make_table([0, 1], [0, 1], [1.0, 2.0], ids=["a", "b"])
    texts = make_texts(table.ids, ["Über " + "x" * 400, "other"])
    live = LiveSamples(AuditInput(audit(table), None, texts), Marks(tmp_path / "m", table.ids))
    assert chosen(live, text="über") == [0]
    assert len(live.rows(live.select({})["view"], 0, 2)[1]["content"]) == 280
    assert live.detail(0)["content"] == "Über " + "x" * 400
    assert live.picture(0, False) is None


def test_rows_say_what_a_page_says(tmp_path):
    live = make_live(tmp_path)
    row = live.detail(3)
    assert (row["id"], row["label"], row["picture"], row["content"]) == (
        "s00003",
        int(live.table.labels[3]),
        True,
        None,
    )
    assert live.about()["range"]["high"] == live.table.difficulty.max()


def test_views_of_long_ago_and_rows_that_are_none_are_refused(tmp_path):
    live = make_live(tmp_path, 60)
    view = live.select({"given": 0})["view"]
    with pytest.raises(InputError, match=rf"^`rows` must be at most {MOST_ROWS} of 0 to \d\d; got 0 to 59"):
        live.rows(view, 0, 59)
    for place in range(8):
        live.select({"low": float(place)})
    with pytest.raises(InputError, match="this one is gone"):
        live.rows(view, 0, 1)
    with pytest.raises(InputError, match=r"^`row` must be in \[0, 60\); got 60"):
        live.detail(60)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "`criteria` must be an object"),
        ({"evil": 1}, "`criteria` must be an object"),
        ({"given": "1"}, "`given` must be int; got str"),
        ({"given": True}, "`given` must be int; got bool"),
        ({"text": None}, "`text` must be str; got NoneType"),
        ({"sort": "random"}, "`sort` must be one of hardest"),
    ],
)
def test_criteria_of_another_kind_are_refused(content, message):
    with pytest.raises(InputError) as error:
        Criteria.of(content)
    assert str(error.value).startswith(message)


def test_marks_are_in_the_file_at_once_and_come_back(tmp_path):
    path, ids = tmp_path / "new" / "marks.jsonl", np.array(["a", "b", "c"], dtype=object)
    marks = Marks(path, ids)
    for row, marked in ((0, True), (2, True), (0, False)):
        marks.set(row, marked)
    assert path.read_text(encoding="utf-8").count("\n") == 3
    assert Marks(path, ids).rows() == [2]
    assert Marks(path, ids[:1]).rows() == []  # of samples that are gone


def test_a_torn_last_line_is_left_out_and_a_foreign_file_refused(tmp_path):
    path, ids = tmp_path / "marks.jsonl", np.array(["a", "b"], dtype=object)
    path.write_text('{"id": "a", "marked": true}\n{"id": "b", "mar', encoding="utf-8")
    marks = Marks(path, ids)
    assert marks.rows() == [0]
    marks.set(1, True)
    assert Marks(path, ids).rows() == [0, 1]
    path.write_text("id,marked\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^`--marks` must hold marks; line 1 of "):
        Marks(path, ids)


def test_the_csv_of_marks_holds_no_formula():
    table = make_table([0, 1], [1, 1], [1.5, -2.0], ids=["=1+1", 'a,"b"'])
    assert marks_csv(audit(table), [0, 1]) == (
        "row,id,label,label_name,nearest_label,nearest_label_name,difficulty,rank,margin,probability_wrong\r\n"
        "0,'=1+1,0,0,1,1,1.5,1.0,1.0,\r\n"
        '1,"a,""b""",1,1,1,1,-2.0,0.0,0.0,\r\n'
    )


@pytest.fixture
def served(tmp_path):
    """A server with sixty pictures and their features."""
    values, _, _ = make_blobs(60)
    suspects = make_suspects(60)
    ids = suspects.table.ids
    features = save_features(Features(ids, values, None), tmp_path / "features")
    samples = LiveSamples(AuditInput(suspects, features, make_images(ids)), Marks(tmp_path / "marks.jsonl", ids))
    server = PageServer(Report("live <b>"), samples)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(server, path: str, *, body=None, **headers) -> tuple[int, bytes]:
    """A request with the run's cookie, unless the headers say otherwise."""
    given = {"Cookie": f"{server.cookie}={server.token}", "Content-Type": "application/json", **headers}
    url = f"http://127.0.0.1:{server.port}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, given), timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_only_this_machine_with_the_token_is_answered(served):
    assert served.server_address[0] == "127.0.0.1"
    assert ask(served, "/")[0] == 200
    assert ask(served, "/", Host="evil.example")[0] == 403
    assert ask(served, "/", Host=f"evil.example:{served.port}")[0] == 403
    assert ask(served, "/", Cookie="")[0] == 403
    assert ask(served, "/", Cookie=f"{served.cookie}=guess")[0] == 403
    assert ask(served, "/?token=guess", Cookie="")[0] == 403
    assert ask(served, "/thumbnail?row=0", Cookie="")[0] == 403
    assert ask(served, "/marks", body=b'{"row": 0, "marked": true}', Cookie="")[0] == 403
    assert not served.samples.marks.path.exists()


def test_the_address_sets_the_cookie_and_leaves_the_token_behind(served):
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *arguments):
            return None

    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.build_opener(Stay).open(served.address, timeout=10)
    with answer.value as response:
        assert (response.code, response.headers["Location"]) == (303, "/")
        assert response.headers["Set-Cookie"].endswith("; HttpOnly; SameSite=Strict; Path=/")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/thumbnail?row=60", None, 400),
        ("/thumbnail?row=-1", None, 400),
        ("/thumbnail?row=1e3", None, 400),
        ("/thumbnail?row=" + "9" * 400, None, 400),
        ("/rows?view=none&start=0&end=1", None, 400),
        ("/../../etc/passwd", None, 404),
        ("/nothing", b"{}", 404),
        ("/select", b"[", 400),
        ("/select", b"[" * 20_000, 400),
        ("/marks", b'{"row": "0"}', 400),
        ("/marks", b'{"row": 99, "marked": true}', 400),
        ("/marks", b" " * 70_000, 400),
    ],
)
def test_wrong_requests_are_refused(served, path, body, code):
    assert ask(served, path, body=body)[0] == code


def test_a_form_cannot_mark(served):
    kind = {"Content-Type": "text/plain"}
    assert ask(served, "/marks", body=b'{"row": 0, "marked": true}', **kind)[0] == 400
    assert served.samples.marks.rows() == []


def test_pictures_are_webp(served):
    code, content = ask(served, "/thumbnail?row=3")
    assert (code, content[:4], content[8:12]) == (200, b"RIFF", b"WEBP")


def test_the_page_works_as_the_other_one_does(served, browser):
    context = browser.new_context()
    page = context.new_page()
    lines, urls = [], []
    page.on("console", lambda message: lines.append(message.text))
    page.on("pageerror", lambda error: lines.append(str(error)))
    page.on("request", lambda request: urls.append(request.url))
    page.goto(served.address)
    page.wait_for_selector("html[data-ready=true]", state="attached")
    assert page.url == f"http://127.0.0.1:{served.port}/"
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(page.locator("#count")).to_have_text("60 of 60 samples")
    page.locator("#filters [name=suspects]").check()
    expect(page.locator("#count")).to_have_text("5 of 60 samples")
    page.locator("#gallery .item .star").first.click()
    expect(page.locator("#count")).to_have_text("5 of 60 samples, 1 marked")
    suspects = served.samples.audit.suspects
    hardest = next(row for row in suspects.order if suspects.suspect[row])
    line = json.loads(served.samples.marks.path.read_text(encoding="utf-8"))
    assert line == {"id": served.samples.table.ids[hardest], "marked": True}
    page.locator("#gallery .item").first.click()
    expect(page.locator("#detail .neighbour")).to_have_count(8)
    with page.expect_download() as download:
        page.evaluate("document.getElementById('detail').close()")
        page.locator("#download").click()
    assert download.value.path().read_text(encoding="utf-8").count("\n") == 2
    context.close()
    assert lines == []
    assert all(url.startswith((f"http://127.0.0.1:{served.port}/", "blob:")) for url in urls)


def test_a_page_whose_server_has_gone_says_so(served, browser):
    context = browser.new_context()
    page = context.new_page()
    expect = pytest.importorskip("playwright.sync_api").expect
    page.goto(served.address)
    expect(page.locator("#count")).to_have_text("60 of 60 samples")
    context.set_offline(True)
    page.locator("#gallery .item .star").first.click()
    expect(page.locator("#count")).to_contain_text("diffident serve does not answer; nothing was changed.")
    assert served.samples.marks.rows() == []
    context.set_offline(False)
    page.locator("#gallery .item .star").first.click()
    expect(page.locator("#count")).to_have_text("60 of 60 samples, 1 marked")
    context.close()


def test_a_list_too_long_for_a_browser_is_shown_in_parts(tmp_path, browser):
    count = 400_000
    labels = np.arange(count) % 2
    table = make_table(labels, labels, np.arange(count)[::-1])
    server = PageServer(Report("long"), LiveSamples(AuditInput(audit(table)), Marks(tmp_path / "m", table.ids)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    page = browser.new_page()
    expect = pytest.importorskip("playwright.sync_api").expect
    page.goto(server.address)
    expect(page.locator("#count")).to_have_text("400,000 of 400,000 samples, here 1 to 288,461")
    page.locator("#forth").click()
    expect(page.locator("#count")).to_have_text("400,000 of 400,000 samples, here 288,462 to 400,000")
    page.locator("#gallery").focus()
    page.keyboard.press("End")
    expect(page.locator("#gallery [aria-posinset='400000']")).to_contain_text("s399999")
    page.keyboard.press("Home")
    expect(page.locator("#gallery [aria-posinset='1']")).to_contain_text("s00000")
    page.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_address_as_json_does_not_wait_in_a_buffer(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written))
    print_json({"port": 1})
    assert json.loads(written.getvalue()) == {"port": 1}


def test_the_command_serves_an_audit_and_keeps_its_marks_beside_it(tmp_path):
    folder = write_audit_folder(tmp_path / "audit", make_suspects(30))
    server = open_server(build_parser("serve").parse_args(["serve", str(folder)]))
    assert server.samples.marks.path == folder / "marks.jsonl"
    assert server.report.samples is None
    assert "30" in dict(server.report.facts)["samples"]
    server.server_close()


def test_a_port_that_is_none_is_one_line(tmp_path, capsys):
    folder = write_audit_folder(tmp_path / "audit", make_suspects(30))
    assert main(["serve", str(folder), "--port", "99999"]) == 2
    assert "`--port` must be in [0, 65536); got 99999." in capsys.readouterr().err
