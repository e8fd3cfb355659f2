"""The OpenAPI description of the verbs under /api, made from the declarations of results and of jobs."""

from importlib import metadata

from ...contract import catalogue
from ...contract.encoding import dumps
from ...contract.quantity import Number, Record
from ...jobs.kinds import KINDS
from ...jobs.queue import STATES

WORDS = {"type": "string", "description": "a number such as 70B, 128k or 1e21; where the result allows, a sweep such as 4k:1M:log:50"}
TEXT = {"type": "string"}
NUMBER = {"type": ["number", "null"]}
ERRORS = {"404": "There is no such thing", "413": "Too much was sent", "415": "Not JSON", "422": "Refused", "503": "Too much is asked at once"}
BACKGROUND = ("verify", "fit", "plan", "audit", "log")


def document(slug=None):
    """The description as JSON text; of the paper `slug` alone, or of the whole book."""
    papers = [catalogue.paper(slug)] if slug else catalogue.papers()
    paths, schemas = {**_book(), **_jobs()}, _schemas()
    for paper in papers:
        for result in paper.results.values():
            schemas[result.id] = _with_words(result.schema())
            paths[f"/api/run/{result.id}"] = {"post": _run(result)}
            if solvable(result):
                paths[f"/api/solve/{result.id}"] = {"post": _solve(result)}
    return dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "lawbook", "version": metadata.version("lawbook"), "description": "The executable handbook of machine-learning theory."},
            "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
            "security": [{}, {"token": []}],
        }
    )


def addresses():
    """(method, address, what it does) of everything under /api."""
    of_results = [("POST", "/api/run/{slug}.{result}", "Evaluate a result; with GET, arguments in the query"), ("POST", "/api/solve/{slug}.{result}", "Solve it for an argument")]
    others = [(method.upper(), path, operation["summary"]) for path, methods in {**_book(), **_jobs()}.items() for method, operation in methods.items()]
    return [*others[:2], *of_results, *others[2:]]


def solvable(result):
    """The numeric fields that the result may be solved for: [None] where it answers with one number."""
    if isinstance(result.returns, Number):
        return [None] if any(isinstance(q, Number) for q in result.arguments.values()) else []
    return [key for key, q in result.returns.fields.items() if isinstance(q, Number)] if isinstance(result.returns, Record) else []


def _schemas():
    job = {
        "id": TEXT,
        "kind": {"enum": list(KINDS)},
        "title": TEXT,
        "state": {"enum": list(STATES), "description": "; ".join(f"{name}: {meaning}" for name, meaning in STATES.items())},
        **dict.fromkeys(("made", "begun", "ended", "done", "total"), NUMBER),
        "text": {**TEXT, "description": "the last remark on progress"},
        "message": {**TEXT, "description": "why it ended as it did"},
        "href": TEXT,
        "page": TEXT,
    }
    return {
        "Error": {"type": "object", "properties": {"error": {**TEXT, "description": "one sentence: what was wrong, what is allowed"}}, "required": ["error"]},
        "Job": {"type": "object", "properties": job, "required": ["id", "kind", "state", "href"]},
    }


def _answer(description, schema, **more):
    return {"description": description, "content": {"application/json": {"schema": schema}}, **more}


def _operation(summary, tag, answers, *, parameters=(), body=None, errors=("422",), **more):
    responses = {**answers, **{code: _answer(ERRORS[code], {"$ref": "#/components/schemas/Error"}) for code in errors}}
    return {"summary": summary, "tags": [tag], "parameters": list(parameters), **({"requestBody": body} if body else {}), "responses": responses, **more}


def _queued():
    where = {"Location": {"schema": TEXT, "description": "the address of the job"}}
    return {"202": _answer("The job waits for its turn", {"$ref": "#/components/schemas/Job"}, headers=where)}


def _parameter(name, schema, place="query", **more):
    return {"name": name, "in": place, "required": place == "path", "schema": schema, **more}


def _book():
    found = {"type": "object", "properties": {"total": {"type": "integer"}, "papers": {"type": "array", "items": {"type": "object"}}}, "required": ["total", "papers"]}
    asked = [_parameter(name, TEXT) for name in ("words", "tag", "kind", "chapter", "argument")]
    asked += [_parameter("start", {"type": "integer", "minimum": 0, "default": 0}), _parameter("most", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50})]
    shown = [_parameter("name", {**TEXT, "description": "SLUG or SLUG.RESULT", "examples": ["rope-base-region"]}, "path")]
    return {
        "/api/find": {"get": _operation("Search the book", "find", {"200": _answer("Papers, the most relevant first", found)}, parameters=asked, errors=("422",))},
        "/api/show/{name}": {"get": _operation("A paper or a result", "show", {"200": _answer("What is known of it", {"type": "object"})}, parameters=shown, errors=("404",))},
    }


def _jobs():
    of = [_parameter("job", TEXT, "path")]
    job = {"$ref": "#/components/schemas/Job"}
    listed = {"type": "object", "properties": {"total": {"type": "integer"}, "jobs": {"type": "array", "items": job}}, "required": ["total", "jobs"]}
    event = {"type": "object", "properties": {"number": {"type": "integer"}, "at": NUMBER, "done": NUMBER, "total": NUMBER, "text": {"type": ["string", "null"]}}}
    remarks = {"type": "object", "properties": {"job": job, "events": {"type": "array", "items": event}}, "required": ["job", "events"]}
    after = _parameter("after", {"type": "integer", "minimum": 0, "default": 0})
    asked = [_parameter("kind", {"enum": list(KINDS)}), _parameter("state", {"enum": list(STATES)})]
    asked += [_parameter("start", {"type": "integer", "minimum": 0, "default": 0}), _parameter("most", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50})]
    ended = {"409": _answer("The job is in another state", {"$ref": "#/components/schemas/Error"})}
    page = {"200": {"description": "The page about what the job has made", "content": {"text/html": {"schema": TEXT}}}}
    paths = {
        "/api/jobs": {"get": _operation("The jobs, the newest first", "jobs", {"200": _answer("Jobs", listed)}, parameters=asked)},
        "/api/jobs/{job}": {
            "get": _operation("A job with its result", "jobs", {"200": _answer("The job", job)}, parameters=of, errors=("404",)),
            "delete": _operation("Remove a job that has ended", "jobs", {"204": {"description": "It is removed"}, **ended}, parameters=of, errors=("404",)),
        },
        "/api/jobs/{job}/events": {"get": _operation("Remarks on a job's progress", "jobs", {"200": _answer("Remarks", remarks)}, parameters=[*of, after], errors=("404", "422"))},
        "/api/jobs/{job}/report": {"get": _operation("The page about a job's result", "jobs", page, parameters=of, errors=("404",))},
        "/api/jobs/{job}/cancel": {"post": _operation("Stop a job", "jobs", {"202": _answer("It will stop", job), **ended}, parameters=of, errors=("404",))},
    }
    for name in BACKGROUND:
        kind = KINDS[name]
        schema = kind.schema()
        content = {"application/json": {"schema": _with_words(schema)}}
        if kind.uploads:
            columns = {"type": "object", "additionalProperties": {"type": "array"}, "description": "columns by name"}
            table = {"table": {"anyOf": [columns, {"type": "array", "items": {"type": "object"}}], "description": "columns, or a list of records"}}
            content["application/json"]["schema"]["properties"] |= table
            fields = dict.fromkeys(schema["properties"], TEXT)
            files = {"table": {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": kind.uploads}}
            content["multipart/form-data"] = {"schema": {"type": "object", "properties": {**fields, **files}}}
        body = {"required": bool(schema["required"]), "content": content}
        paths[f"/api/{name}"] = {"post": _operation(kind.title, name, _queued(), body=body, errors=("404", "413", "415", "422", "503"))}
    return paths


def _with_words(schema):
    """The schema of arguments where numbers may be written as people do."""
    properties = {name: {"anyOf": [q, WORDS]} if q.get("type") in ("number", "integer") or "anyOf" in q else q for name, q in schema["properties"].items()}
    return {**schema, "properties": properties}


def _run(result):
    answer = {
        "type": "object",
        "properties": {
            "result": {"const": result.id},
            "arguments": {"type": "object"},
            "value": result.returns.schema(),
            "unit": TEXT,
            "cautions": {"type": "array", "items": TEXT},
        },
        "required": ["result", "arguments", "cautions"],
        "description": "or, where an argument was a sweep, `rows` (name -> cells) instead of a value",
    }
    body = {"required": bool(result.schema()["required"]), "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{result.id}"}, "example": result.example()}}}
    answers = {"200": _answer("The value, or the rows of a sweep", answer), **_queued()}
    return _operation(result.summary, result.paper.slug, answers, body=body, errors=("413", "415", "422", "503"))


def _solve(result):
    numeric = [name for name, q in result.arguments.items() if isinstance(q, Number)]
    fields = [field for field in solvable(result) if field]
    schema = {
        "type": "object",
        "properties": {
            "unknown": {"enum": numeric},
            "target": {"anyOf": [{"type": "number"}, WORDS]},
            **({"field": {"enum": fields}} if fields else {}),
            "arguments": {"type": "object", "properties": {name: {"$ref": f"#/components/schemas/{result.id}/properties/{name}"} for name in result.arguments}},
        },
        "required": ["unknown", "target", *(["field"] if fields else [])],
        "additionalProperties": False,
    }
    solution = {
        "type": "object",
        "properties": {"result": {"const": result.id}, "unknown": TEXT, "roots": {"type": "array"}, "answers": {"type": "array"}, "reason": TEXT},
        "required": ["result", "unknown", "roots", "reason"],
    }
    answers = {"200": _answer("Every root in the range that was searched, or the reason why there is none", solution), **_queued()}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return _operation(f"Solve for an argument: {result.summary}", result.paper.slug, answers, body=body, errors=("413", "415", "422", "503"))


def described(name):
    """What /api/show says of a paper or of a result; UnknownName without it."""
    from ...jobs.find import describe

    if "." not in name:
        paper = catalogue.paper(name)
        return {**describe(paper), "link": paper.link, "notes": paper.notes, "bibtex": paper.bibtex()}
    result = catalogue.result(name)
    return {
        "id": result.id,
        "paper": result.paper.slug,
        "title": result.paper.title,
        "link": result.paper.link,
        "kind": result.kind,
        "summary": result.summary,
        "statement": result.statement,
        "assumptions": list(result.assumptions),
        "requires": list(result.requires),
        "arguments": {
            name: {"allowed": q.allowed(), "unit": q.unit, "doc": q.doc, **({"default": result.defaults[name]} if name in result.defaults else {})}
            for name, q in result.arguments.items()
        },
        "schema": result.schema(),
        "returns": {"allowed": result.returns.allowed(), "unit": result.returns.unit, "schema": result.returns.schema()},
        "example": result.example(),
        "trials": [trial.id for trial in result.paper.trials.values() if result.name in trial.results],
        "run": f"/api/run/{result.id}",
    }
