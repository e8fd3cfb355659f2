"""The verbs over HTTP, on a real server: the same answers and sentences as in the shell, whatever is sent and however much at once."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

SERVER = """
import sys, uvicorn
from lawbook.faces.web.app import Settings, create_app
from lawbook.jobs.queue import Limits
if __name__ == "__main__":
    port, *folders = sys.argv[1:]
    app = create_app(Settings(port=int(port), folders=tuple(folders), limits=Limits(upload=2**20, at_once=2), live_seconds=8.0))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
"""
BREAKS = """
'A paper whose results are hard on their server.'
import os, time
from lawbook.contract import Paper, count, positive, real
paper = Paper(__name__, title="Results that break", arxiv="2401.00001", tags=["test"], source="none", says="What a server must survive.")
@paper.model("t")
def endless(seconds: positive("seconds", example=1.0)) -> real():
    'Works for so long.'
    while True:
        pass
@paper.model("n")
def greedy(gibibytes: count(example=64)) -> real():
    'Takes so much memory.'
    return float(len(bytearray(gibibytes * 2**30)))
@paper.model("0")
def aborts(times: count(example=1)) -> real():
    'Ends its process.'
    os.abort()
@paper.model("1/0")
def fails(times: count(example=1)) -> real():
    'Divides by zero.'
    return 1 / (times - times)
"""
LAW = "beyond-chinchilla.chinchilla_loss"
PHASE = "rope-base-region.slowest_phase"
GIVEN = {"base": "500k", "head_dim": 128, "context_length": "128Ki"}
TABLE = "params,tokens,loss\n" + "".join(f"{n},{d},{1.8 + 480 / n**0.35 + 2000 / d**0.37}\n" for n in (1e7, 3e7, 1e8, 3e8) for d in (1e9, 3e9, 1e10, 3e10))


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """(address, folder) of a server in a process of its own."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "models" / "small").mkdir(parents=True)
    (folder / "models" / "small" / "config.json").write_text("{}")
    (folder / "models" / "out").symlink_to("/etc")
    (folder / "server.py").write_text(SERVER)
    (folder / "chapters" / "tests").mkdir(parents=True)
    (folder / "chapters" / "tests" / "results_that_break.py").write_text(BREAKS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "LAWBOOK_HOME": str(folder / "home"), "LAWBOOK_CHAPTERS": str(folder / "chapters")}
    process = subprocess.Popen([sys.executable, folder / "server.py", str(port), folder / "models"], env=environment, stderr=(folder / "log").open("w"))
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{address}/api/find?most=1", timeout=20)
            break
        except httpx.TransportError:
            assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
    yield address, folder
    process.send_signal(signal.SIGINT)
    process.wait(20)
    log = (folder / "log").read_text()
    assert "Traceback" not in log, log


@pytest.fixture
def api(started):
    with httpx.Client(base_url=f"{started[0]}/api", timeout=60) as client:
        yield client


def ended(api, job, seconds=60):
    until = time.monotonic() + seconds
    while (found := api.get(f"/jobs/{job}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, found
        time.sleep(0.1)
    return found


# the verbs


def test_find(api):
    found = api.get("/find", params={"words": "rope base", "most": 3}).json()
    assert found["papers"][0]["slug"] == "rope-base-region" and len(found["papers"]) <= 3 <= found["total"]
    assert {p["chapter"] for p in api.get("/find", params={"chapter": "decoding"}).json()["papers"]} == {"decoding"}
    first, second = (api.get("/find", params={"start": start, "most": 1}).json()["papers"][0]["slug"] for start in (0, 1))
    assert first != second
    assert api.get("/find", params={"words": "qqqq"}).json() == {"total": 0, "papers": []}
    refused = api.get("/find", params={"kind": "lawww"})
    assert refused.status_code == 422 and refused.json()["error"].startswith("There is no kind 'lawww'; did you mean law?")


def test_show(api):
    paper = api.get("/show/rope-base-region").json()
    assert paper["link"].startswith("https://arxiv.org/abs/") and paper["bibtex"].startswith("@misc") and PHASE.split(".")[1] in [r["name"] for r in paper["results"]]
    result = api.get(f"/show/{PHASE}").json()
    assert result["schema"]["properties"]["head_dim"]["type"] == "integer" and result["kind"] and result["statement"]
    missing = api.get("/show/rope-bas-region")
    assert missing.status_code == 404 and missing.json() == {"error": "There is no paper 'rope-bas-region'; did you mean rope-base-region?"}


def test_run_as_in_the_shell(api, shell):
    answer = api.post(f"/run/{PHASE}", json=GIVEN)
    assert answer.status_code == 200 and answer.json()["value"] == pytest.approx(0.3218, abs=1e-4)
    assert api.get(f"/run/{PHASE}", params=GIVEN).json() == answer.json()
    _, out, _ = shell("run", PHASE, "--base", "500k", "--head-dim", "128", "--context-length", "128Ki", "--format", "json")
    assert json.loads(out) == answer.json()
    sweep = api.post(f"/run/{PHASE}", json={**GIVEN, "base": "1e4:1e7:log:7"}).json()
    assert sweep["sweeps"] == ["base"] and len(sweep["rows"]["slowest_phase"]) == 7


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"head_dim": -1}, 422),
        ({"head_dim": "many"}, 422),
        ({"heads": 3}, 422),
        ({"base": None}, 422),
        ({"base": {"a": 1}}, 422),
        ({"head_dim": [[1]]}, 422),
        ({"base": "1:2:3:4:5"}, 422),
    ],
)
def test_wrong_arguments_are_refused_in_the_shell_s_words(api, shell, change, status):
    given = {**GIVEN, **change}
    refused = api.post(f"/run/{PHASE}", json=given)
    assert refused.status_code == status
    file = json.dumps(given)
    sentence = refused.json()["error"]
    assert "\n" not in sentence and sentence.endswith((".", "?"))
    if change != {"heads": 3}:  # which the shell has no option for
        import lawbook

        with pytest.raises(lawbook.LawbookError) as error:
            lawbook.run(PHASE, **json.loads(file))
        assert str(error.value) == sentence


def test_solve(api):
    asked = {"unknown": "base", "target": 3.14, "arguments": {"head_dim": 128, "context_length": "128Ki"}}
    assert api.post(f"/solve/{PHASE}", json=asked).json()["roots"] == pytest.approx([49422.285], rel=1e-6)
    for wrong in (
        {},
        {"unknown": "base"},
        {**asked, "unknown": "colour"},
        {**asked, "target": "much"},
        {**asked, "target": True},
        {**asked, "arguments": 1},
        {**asked, "extra": 1},
    ):
        assert api.post(f"/solve/{PHASE}", json=wrong).status_code == 422, wrong


def test_large_sweeps_become_jobs(api):
    answer = api.post(f"/run/{PHASE}", json={**GIVEN, "base": "1e4:1e7:log:30000"})
    assert answer.status_code == 202 and answer.headers["location"] == answer.json()["href"]
    found = ended(api, answer.json()["id"])
    assert found["state"] == "done" and len(found["result"]["rows"]["base"]) == 30_000
    assert api.get(f"/run/{PHASE}", params={**GIVEN, "base": "1e4:1e7:log:30000"}).status_code == 422, "asking with GET begins nothing"


def test_fit_by_upload_and_by_columns(api):
    begun = api.post("/fit", files={"table": ("runs.csv", TABLE)}, data={"bootstrap": "0", "starts": "64", "law": LAW})
    assert begun.status_code == 202 and begun.json()["title"] == "fit: runs.csv, bootstrap 0, starts 64"
    rows = [dict(zip(("params", "tokens", "loss"), map(float, line.split(",")), strict=True)) for line in TABLE.splitlines()[1:]]
    other = api.post("/fit", json={"table": rows, "bootstrap": 0, "starts": 64, "law": LAW})
    first, second = (ended(api, answer.json()["id"]) for answer in (begun, other))
    assert first["state"] == second["state"] == "done", (first["message"], second["message"])
    assert first["result"]["fits"][0]["parameters"] == second["result"]["fits"][0]["parameters"]
    report = api.get(f"/jobs/{first['id']}/report")
    assert "Which law fits these runs" in report.text and f"lawbook fit runs.csv --law {LAW} --bootstrap 0 --starts 64" in report.text
    assert "sandbox" in report.headers["content-security-policy"] and "script-src" not in report.headers["content-security-policy"]
    events = api.get(f"/jobs/{first['id']}/events").json()["events"]
    assert any("16 rows read" in (event["text"] or "") for event in events)


def test_plan_and_verify(api):
    plan = ended(api, api.post("/plan", json={"compute": "1e24"}).json()["id"])
    assert plan["state"] == "done" and plan["result"]["quantities"]["params"]["value"] > 1e9
    verdict = ended(api, api.post("/verify", json={"names": ["rope-base-region.bisection"]}).json()["id"])
    assert verdict["result"]["counts"] == {"upheld": 1}


def test_jobs_are_listed_stopped_and_removed(api):
    job = api.post("/verify", json={"effort": "full"}).json()["id"]
    assert api.delete(f"/jobs/{job}").status_code == 409
    assert api.post(f"/jobs/{job}/cancel").status_code == 202
    assert ended(api, job, 15)["state"] == "cancelled"
    assert api.post(f"/jobs/{job}/cancel").status_code == 409
    assert job in [entry["id"] for entry in api.get("/jobs", params={"state": "cancelled"}).json()["jobs"]]
    assert api.delete(f"/jobs/{job}").status_code == 204 and api.get(f"/jobs/{job}").status_code == 404


# what must be refused


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b"[1]", "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b'{"base": NaN}', "application/json", 422),
        (b'{"base": "\\ud800"}', "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b'{"base": ' + b"9" * 5000 + b"}", "application/json", 422),
        (b"base=1", "application/x-www-form-urlencoded", 415),
        (b"cos\nsystem\n(S'ls'\ntR.", "application/octet-stream", 415),
        (b'{"base": "' + b"1" * 3 * 2**20 + b'"}', "application/json", 413),
    ],
)
def test_bodies_that_are_no_json(api, body, kind, status):
    answer = api.post(f"/run/{PHASE}", content=body, headers={"content-type": kind})
    assert answer.status_code == status and list(answer.json()) == ["error"], answer.text


def test_no_path_outside_the_folders_is_read(api, started):
    for path in ("/etc/passwd", "../home", "out", "out/passwd", "small/../../home", "/proc/self/environ", "a\0b", "//etc", str(started[1] / "home")):
        answer = api.post("/audit", json={"path": path})
        assert answer.status_code == 422 and "one of the folders named" in answer.json()["error"], path
    assert api.post("/plan", json={"constants": "/etc/passwd"}).status_code == 422
    assert api.post("/plan", json={"table": "/etc/passwd"}).status_code == 422
    assert api.post("/fit", json={"table": "/etc/passwd"}).status_code == 422
    base = started[0]
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fcli.py",
        "/static//etc/passwd",
        "/jobs/..%2f..%2f/report",
        "/api/jobs/..%2fx/report",
        "/api/show/..%2f..%2fetc",
    ):
        with httpx.Client() as client:
            answer = client.send(httpx.Request("GET", httpx.URL(base).copy_with(raw_path=path.encode())))
        assert answer.status_code in (400, 404), (path, answer.status_code)


def test_names_of_uploads_lead_nowhere(api, started):
    answer = api.post("/fit", files={"table": ("../../../../escape.csv", TABLE)}, data={"bootstrap": "0", "starts": "8"})
    assert answer.status_code == 202
    assert api.get(f"/jobs/{answer.json()['id']}").json()["files"][0]["name"] == "escape.csv"
    assert not list(started[1].parent.rglob("escape.csv")) or all("jobs" in str(found) for found in started[1].rglob("escape.csv"))
    api.post(f"/jobs/{answer.json()['id']}/cancel")


def test_an_upload_that_is_too_large_is_refused(api):
    assert api.post("/fit", files={"table": ("runs.csv", b"1,2,3\n" * 2**20)}).status_code == 413


def test_other_sites_cannot_send_anything(started):
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert httpx.post(f"{started[0]}/api/verify", json={}, headers=headers).status_code == 403
    assert httpx.get(f"{started[0]}/api/find", headers={"host": "evil.example"}).status_code == 400
    form = httpx.post(f"{started[0]}/jobs/new/verify", data={"names": "rope-base-region"})
    assert form.status_code == 403, "a form without its token"


# much at once


def test_200_requests_at_once_and_a_page_never_waits_for_a_job(started):
    address, _ = started
    base = f"{address}/api"
    slow = [httpx.post(f"{base}/verify", json={"effort": "full"}, timeout=30).json()["id"] for _ in range(2)]
    asked = [
        *[("GET", "/api/find?words=scaling+law&most=5", None)] * 50,
        *[("POST", f"/api/run/{PHASE}", {**GIVEN, "base": 10_000 + i}) for i in range(60)],
        *[("GET", "/api/show/rope-base-region", None)] * 30,
        *[("GET", "/jobs", None)] * 25,
        *[("GET", f"/jobs/{slow[0]}", None)] * 25,
        *[("POST", f"/api/run/{PHASE}", {**GIVEN, "base": -1})] * 10,
    ]

    async def ask_all():
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:

            async def ask(method, path, body):
                begun = time.monotonic()
                answer = await client.request(method, path, json=body)
                return answer.status_code, time.monotonic() - begun

            return await asyncio.gather(*(ask(*each) for each in asked))

    begun = time.monotonic()
    answers = asyncio.run(ask_all())
    took = time.monotonic() - begun
    assert len(answers) == 200
    assert [status for status, _ in answers] == [200] * 190 + [422] * 10
    assert took < 30, f"{took:.1f} s for 200 requests"
    for job in slow:
        httpx.post(f"{base}/jobs/{job}/cancel", timeout=30)


def test_endless_answers_become_jobs_and_hold_up_nobody(started):
    address, _ = started

    async def all_at_once():
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            endless = [asyncio.create_task(client.post("/api/run/results-that-break.endless", json={"seconds": i})) for i in (1, 2)]
            await asyncio.sleep(0.3)
            begun = time.monotonic()
            page = await client.get("/api/show/rope-base-region")
            waited = time.monotonic() - begun
            value = await client.post(f"/api/run/{PHASE}", json=GIVEN)
            return page.status_code, waited, value.status_code, await asyncio.gather(*endless)

    page, waited, value, endless = asyncio.run(all_at_once())
    assert page == value == 200 and waited < 2
    for answer in endless:
        assert answer.status_code == 202 and answer.json()["reason"] == "The answer takes longer than 8 s."
        assert httpx.post(f"{address}/api/jobs/{answer.json()['id']}/cancel", timeout=30).status_code == 202


@pytest.mark.parametrize(
    ("result", "given", "said"),
    [("greedy", {"gibibytes": 64}, "memory"), ("aborts", {"times": 1}, "broke its process"), ("fails", {"times": 1}, "ZeroDivisionError: ")],
)
def test_results_that_break_are_refused_in_a_sentence(api, result, given, said):
    answer = api.post(f"/run/results-that-break.{result}", json=given)
    assert answer.status_code == 422 and said in answer.json()["error"]
    assert api.post(f"/run/{PHASE}", json=GIVEN).status_code == 200


# the description


def test_the_description_is_made_of_the_declarations(api):
    from lawbook.contract import catalogue

    answer = api.get("/openapi.json")
    assert answer.status_code == 200
    described = answer.json()
    results = {r.id: r for p in catalogue.papers() for r in p.results.values()}
    assert {path.removeprefix("/api/run/") for path in described["paths"] if path.startswith("/api/run/") and "that-break" not in path} == set(results)
    schema = described["components"]["schemas"][PHASE]
    assert schema["required"] == results[PHASE].schema()["required"] and set(schema["properties"]) == set(results[PHASE].arguments)
    assert schema["properties"]["head_dim"]["anyOf"][0] == results[PHASE].schema()["properties"]["head_dim"]
    one = api.get("/openapi.json", params={"paper": "rope-base-region"}).json()
    assert 0 < sum(path.startswith("/api/run/") for path in one["paths"]) < 20
    assert api.get("/openapi.json", params={"paper": "none"}).status_code == 404


def test_examples_of_the_description_are_answered(api):
    described = api.get("/openapi.json").json()
    refused = {}
    for path, entry in [item for item in described["paths"].items() if item[0].startswith("/api/run/") and "that-break" not in item[0]][::10]:
        example = entry["post"]["requestBody"]["content"]["application/json"]["example"]
        if set(described["components"]["schemas"][path.removeprefix("/api/run/")]["required"]) <= set(example):
            answer = api.post(path.removeprefix("/api"), json=example)
            if answer.status_code == 202:
                api.post(f"/jobs/{answer.json()['id']}/cancel")
            elif answer.status_code != 200 and "which only Python can give" not in answer.text:
                refused[path] = answer.text
    assert not refused


SLUGS = ("rope-base-region", "best-of-n-kl", "one-epoch")


@pytest.mark.parametrize("slug", SLUGS)
def test_schemathesis_finds_no_server_error(started, slug):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed here (lawbook[test])")
    from hypothesis import HealthCheck, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

    address, _ = started
    described = schemathesis.openapi.from_dict(httpx.get(f"{address}/api/openapi.json", params={"paper": slug}, timeout=60).json())
    described.config.update(base_url=address)
    for found in described.get_all_operations():
        operation = found.ok()
        if slug != SLUGS[0] and not operation.path.startswith(("/api/run/", "/api/solve/")):
            continue

        @settings(max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @_given(operation)
        def sound(case):
            response = case.call(base_url=address, timeout=60)
            if response.status_code == 202 and "id" in response.json():
                httpx.post(f"{address}/api/jobs/{response.json()['id']}/cancel", timeout=60)
            case.validate_response(response, checks=[not_a_server_error, status_code_conformance, content_type_conformance])

        sound()


def _given(operation):
    from hypothesis import given, strategies
    from schemathesis import GenerationMode

    modes = [operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    return given(case=strategies.one_of(modes))
