"""The user study: answered in a real browser, and the opinion scores of the answers."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.user_study import (
    SLOT,
    TEMPLATE,
    Key,
    Study,
    Table2,
    read_answers,
)
from runtime.command_line import UserError

from .conftest import frame, read_table, write

QUESTIONS = ["image quality", "lip sync", "identity"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    for method, brightness in (("Ours", 0), ("Theirs", 40)):
        for clip in ("a", "b"):
            write(root / method / f"{clip}.mp4", [frame(i, brightness)[::2, ::2] for i in range(4)])
    Study((f"Ours={root / 'Ours'}", f"Theirs={root / 'Theirs'}"), root / "page.html", count=2).run()
    return root / "page.html"


def key_of(page: Path) -> Path:
    return page.with_suffix(".key.json")


def test_page_is_self_contained_and_hides_methods(page: Path) -> None:
    text, key = page.read_text(), json.loads(key_of(page).read_text())
    assert "Ours" not in text
    assert "Theirs" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert SLOT in TEMPLATE.read_text()
    assert sorted(key["trials"].values()) == [["Ours", "a"], ["Ours", "b"], ["Theirs", "a"], ["Theirs", "b"]]
    for trial in key["trials"]:
        assert trial in text
    assert text.count("data:video/mp4;base64,") == 4


def test_key_of_another_study_is_not_overwritten(page: Path, tmp_path: Path) -> None:
    for file in (page, key_of(page)):
        shutil.copy(file, tmp_path)
    both = f"Ours={page.parent / 'Ours'}", f"Theirs={page.parent / 'Theirs'}"
    with pytest.raises(UserError, match="belongs to an earlier study"):
        Study(both, tmp_path / "page.html", count=1).run()
    assert all((tmp_path / file.name).read_text() == file.read_text() for file in (page, key_of(page)))


def test_studies_of_other_videos_share_no_numbers(page: Path, tmp_path: Path) -> None:
    first = json.loads(key_of(page).read_text())
    for change, brightness in enumerate((0, 1)):  # another method's name; another content
        shutil.copytree(page.parent / "Theirs", tmp_path / f"{change}")
        write(tmp_path / f"{change}" / "b.mp4", [frame(i, 40 + brightness)[::2, ::2] for i in range(4)])
        methods = f"Ours={page.parent / 'Ours'}", f"{'Third' if change == 0 else 'Theirs'}={tmp_path / f'{change}'}"
        Study(methods, tmp_path / f"{change}.html", count=2).run()
        other = json.loads((tmp_path / f"{change}.key.json").read_text())
        assert other["id"] != first["id"]
        assert not other["trials"].keys() & first["trials"].keys()


def test_methods_without_a_common_clip_are_refused(page: Path, tmp_path: Path) -> None:
    write(tmp_path / "other" / "c.mp4", [frame(0)[::2, ::2]] * 2)
    with pytest.raises(UserError, match="in all folders"):
        Study((f"A={page.parent / 'Ours'}", f"B={tmp_path / 'other'}"), tmp_path / "page.html").run()
    with pytest.raises(UserError, match="NAME=FOLDER"):
        Study((str(tmp_path),), tmp_path / "page.html").run()
    with pytest.raises(UserError, match=r"--output.*html"):
        Study((f"A={page.parent / 'Ours'}",), tmp_path / "other" / "c.mp4").run()


def test_impossible_numbers_are_refused_by_name(page: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^count: .*, not 0$"):
        Study((f"A={page.parent / 'Ours'}",), tmp_path / "page.html", count=0).run()
    assert not list(tmp_path.iterdir())


class Browser:
    """Chromium, driven by the WebDriver protocol over HTTP, which needs no client library."""

    def __init__(self, port: int, profile: Path) -> None:
        self.address = f"http://127.0.0.1:{port}/session"
        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--window-size=400,800",
            "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}",
        ]  # fmt: skip
        wanted = {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}
        self.address += "/" + self.ask("POST", "", {"capabilities": wanted})["sessionId"]

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def go(self, page: Path) -> None:
        self.ask("POST", "/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        return self.ask("POST", "/execute/sync", {"script": script, "args": []})

    def press(self, *keys: str) -> None:
        for key in keys:
            self.run(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: {key!r}, cancelable: true}}))")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if not driver or not shutil.which("chromium"):
        pytest.skip("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    port = 9515
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5).close()
                break
            time.sleep(0.2)
        opened = Browser(port, tmp_path / "profile")
        yield opened
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            opened.ask("DELETE", "")
    finally:
        process.terminate()
        process.wait(20)


def begin(browser: Browser, page: Path, name: str) -> None:
    browser.go(page)
    browser.run(f"document.getElementById('name').value = {name!r}; document.getElementById('begin').click()")


def current(browser: Browser) -> str:
    return browser.run("return state.order[open]")


@pytest.mark.slow
def test_answers_by_keyboard_and_click_survive_closing_the_page(page: Path, browser: Browser, tmp_path: Path) -> None:
    key = json.loads(key_of(page).read_text())
    begin(browser, page, "Zoë 1")
    order = browser.run("return state.order")
    assert sorted(order) == sorted([*key["trials"], *key["checks"]])
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth"), "fits a phone"
    given: dict[str, int] = {}

    def reply() -> None:
        trial = current(browser)
        given[trial] = key["checks"].get(trial) or (5 if key["trials"][trial][0] == "Ours" else 2)
        browser.press(*[str(given[trial])] * 3)

    assert browser.run("return document.getElementById('next').disabled"), "an answer is needed to go on"
    browser.press("ArrowRight")
    assert current(browser) == order[0]
    reply()
    browser.press("ArrowRight")
    reply()
    browser.run('document.querySelector(\'[data-question="1"][data-value="1"]\').click()')  # the answer is changed
    changed = current(browser)
    time.sleep(1)  # Chromium stores answers in the background
    browser.go(page)  # the page is closed and opened again, in the middle
    assert browser.run("return document.getElementById('name').value") == "Zoë 1"
    begin(browser, page, "Zoë 1")
    assert browser.run("return state.order") == order
    assert current(browser) == order[2], "continues where it was left"
    browser.press("ArrowLeft")
    pressed = browser.run("return [...document.querySelectorAll('[aria-pressed=true]')].map(b => +b.dataset.value)")
    assert pressed == [given[changed], 1, given[changed]]
    browser.press("ArrowRight")
    for _ in order[2:]:
        reply()
        browser.press("ArrowRight")
    saved = json.loads(browser.run("return document.getElementById('answers').value"))
    assert saved["answers"] == {t: [v, 1, v] if t == changed else [v] * 3 for t, v in given.items()}
    assert browser.run("return document.getElementById('save').download").endswith(".answers.json")
    assert browser.run("return fetch(document.getElementById('save').href).then(r => r.text())") == json.dumps(
        saved, indent=1, ensure_ascii=False
    )
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "zoe.json").write_text(json.dumps(saved))
    Table2(key_of(page), (tmp_path / "answers",), tmp_path / "out").run()
    table = read_table(tmp_path / "out" / "table2.json")
    assert table.rows[0].name == "Ours"
    orders = []
    for name in "abcdefgh":  # a single other person may well get the same of the 24 orders
        begin(browser, page, name)
        orders.append(browser.run("return state.order"))
    assert any(other != order for other in orders)
    begin(browser, page, "Zoë 1")
    assert browser.run("return state.answers") == saved["answers"]


@pytest.mark.slow
def test_a_skipped_question_stays_open_after_reopening(page: Path, browser: Browser) -> None:
    begin(browser, page, "hasty")
    first = current(browser)
    browser.run('document.querySelector(\'[data-question="2"][data-value="4"]\').click()')
    time.sleep(0.5)  # on a busy machine Chromium may store the answer after it has loaded the next page
    begin(browser, page, "hasty")
    assert current(browser) == first
    assert browser.run("return document.getElementById('next').disabled")
    browser.press("3", "5")
    assert browser.run("return state.answers[state.order[open]]") == [3, 5, 4]


@pytest.mark.slow
def test_videos_play(page: Path, browser: Browser) -> None:
    begin(browser, page, "viewer")
    while current(browser).startswith("check"):
        browser.press("1", "1", "1", "ArrowRight")
    for _ in range(100):
        if browser.run("const v = document.getElementById('video'); return v.readyState >= 2 || v.error !== null"):
            break
        time.sleep(0.1)
    assert browser.run("return document.getElementById('video').error === null && video.videoWidth") == 100
    browser.run('document.querySelector(\'[data-question="0"][data-value="4"]\').focus()')
    strokes = [{"type": kind, "value": " "} for kind in ("keyDown", "keyUp")]
    browser.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})
    assert browser.run("return state.answers[state.order[open]]") == [4], "space presses the focused button"


def answers(name: str, values: dict[str, list[int]], study_id: str = "s", saved: str = "2026-01-01") -> dict[str, Any]:
    return {"study": study_id, "participant": name, "saved": saved, "answers": values}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    trials = {"t1": ["Ours", "a"], "t2": ["Theirs", "a"]}
    path = tmp_path / "page.key.json"
    path.write_text(json.dumps({"id": "s", "trials": trials, "checks": {"check0": 3}}))
    return path


def test_known_answers_give_known_scores(key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    check = {"check0": [3, 3, 3]}
    for file, content in {
        "1": answers("ann", {"t1": [5, 4, 4], "t2": [2, 2, 2], **check}),
        "2": answers("bob", {"t1": [4, 4, 5], "t2": [1, 3, 2], **check}),
        "3": answers("bob", {"t1": [1, 1, 1], "t2": [1, 1, 1], **check}, saved="2025-01-01"),  # an older file
        "4": answers("eve", {"t1": [1, 1, 1], "t2": [5, 5, 5], "check0": [1, 1, 1]}),
        "5": answers("dan", {"t1": [1, 1, 1]}, study_id="another"),
    }.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    (folder / "6.json").write_text("no json")
    Table2(key, (folder,), tmp_path / "out").run()
    rows = {row.name: row.cells for row in read_table(tmp_path / "out" / "table2.json").rows}
    assert [rows["Ours"][q][0] for q in QUESTIONS] == [4.5, 4.0, 4.5]
    assert [rows["Theirs"][q][0] for q in QUESTIONS] == [1.5, 2.5, 2.0]
    assert rows["IP-LAP (paper)"]["lip sync"] == [4.56]
    printed = capsys.readouterr()
    assert "people: 2, answers: 12" in printed.out
    for word in ("eve failed", "another study", "6.json is left out"):
        assert word in printed.err
    Table2(key, (folder / "1.json",)).run()
    printed = capsys.readouterr()
    assert "5.00 " in printed.out and "[" not in printed.out.splitlines()[3], "one person has no interval"
    assert "nan" not in printed.out
    with pytest.raises(UserError, match="no file holds usable answers"):
        Table2(key, (folder / "6.json",)).run()
    whole = json.loads(key.read_text())
    lacking = [json.dumps({name: value for name, value in whole.items() if name != left}) for left in whole]
    for content in ("no json", "{}", "[]", *lacking):
        (tmp_path / "wrong.key.json").write_text(content)
        with pytest.raises(UserError, match="--key"):
            Table2(tmp_path / "wrong.key.json", (folder,)).run()


def test_namesakes_and_unfinished_files_count(key: Path, tmp_path: Path) -> None:
    files = []
    for i, given in enumerate(({"t1": [5, None, 4], "check0": [3, None]}, {"t1": [1, 2], "t2": [2, 2, 2]})):
        files.append(tmp_path / f"{i}.json")
        files[-1].write_text(json.dumps(answers("ann", given) | {"started": f"2026-01-0{i + 1}"}))  # pyright: ignore
    for i, wrong in enumerate(({"t1": [1, 2, 3, 4]}, {"t1": [9, 1, 1]}, {"t1": ["x"]}, {"t1": 5}, [])):
        files.append(tmp_path / f"wrong{i}.json")
        files[-1].write_text(json.dumps(answers("bob", wrong)))  # pyright: ignore
    people = read_answers(tuple(files), Key(**json.loads(key.read_text())))
    nan = np.nan
    np.testing.assert_array_equal(people, [[[5, nan, 4], [nan, nan, nan]], [[1, 2, nan], [2, 2, 2]]])
    Table2(key, tuple(files), tmp_path / "out").run()
    rows = {row.name: row.cells for row in read_table(tmp_path / "out" / "table2.json").rows}
    assert [rows["Ours"][question][0] for question in QUESTIONS] == [3, 2, 4]
    Table2(key, (files[0],), tmp_path / "out").run()
    rows = {row.name: row for row in read_table(tmp_path / "out" / "table2.json").rows}
    assert rows["Theirs"].cells == {}, "nobody rated it"
