"""lawbook: the executable handbook of machine-learning theory.

find, run, solve, fit, plan, audit and verify are the verbs; `lawbook.paper(slug)` and `lawbook.result("slug.name")` are the objects they speak of.
"""

from importlib import import_module

__version__ = "0.1.0"

# where each name lives: nothing is imported before it is asked for, so that `import lawbook` stays light
_HOMES = {
    "find": "jobs.find",
    "run": "jobs.run",
    "solve": "jobs.solve",
    "fit": "jobs.fit",
    "plan": "jobs.plan",
    "audit": "jobs.audit",
    "verify": "jobs.verify",
    "findings": "jobs.verify",
    "paper": "contract.catalogue",
    "papers": "contract.catalogue",
    "result": "contract.catalogue",
    "LawbookError": "contract",
    "DomainError": "contract",
}
__all__ = ["DomainError", "LawbookError", "audit", "find", "findings", "fit", "paper", "papers", "plan", "result", "run", "solve", "verify"]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'lawbook' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    import_module(".contract.shown", __name__).Shown.render = _render
    globals()[name] = value
    return value


def _render(shown):
    return import_module(".faces.notebook", __name__).html(shown)


def __dir__():
    return sorted([*globals(), *_HOMES])
