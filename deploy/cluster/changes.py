"""What a deployment changes, compared with what runs. Secrets are compared, never shown."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from deploy.cluster.configuration import Application, Configuration
from deploy.cluster.state import FAILED, ApplicationState, ClusterState
from serve_app.arguments import SECRETS

_HIDDEN: Final = "(not shown)"
_TEXT_MAX: Final = 48


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line: ``name`` is a setting, or a deployment's option."""

    application: str
    name: str
    before: str
    after: str

    @property
    def restarts(self) -> bool:
        """Whether Serve starts a new version for it: its hash has the arguments and the policy.

        Options of a deployment have a dot in their name.
        """
        return "." not in self.name or "autoscaling_config.policy" in self.name


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    lines: list[Change]
    applications: frozenset[str]
    """Those of which something changes, and those that are new."""
    restarted: frozenset[str]
    """Of those: all processes are started anew, not only as many replicas as are added."""
    removed: frozenset[str]
    """Those that run and that the configuration does not name."""

    @property
    def is_empty(self) -> bool:
        return not (self.applications or self.removed)


def compare(configuration: Configuration, state: ClusterState) -> Changes:
    """What deploying ``configuration`` changes."""
    lines = [
        line
        for application in configuration.applications.values()
        for line in _lines(
            application,
            state.applications.get(application.name),
            from_file=configuration.raw is not None,
        )
    ]
    if configuration.raw is None:  # Serve starts them anew, and knows nothing of the others.
        changed, removed = frozenset(configuration.applications), frozenset[str]()
        restarted = changed
    else:
        changed = frozenset(line.application for line in lines)
        restarted = frozenset(line.application for line in lines if line.restarts)
        # Serve removes only what an earlier configuration has deployed.
        declared = {name for name, found in state.applications.items() if found.config is not None}
        removed = frozenset(declared - configuration.applications.keys())
    return Changes(lines=lines, applications=changed, restarted=restarted, removed=removed)


def _lines(
    application: Application, running: ApplicationState | None, *, from_file: bool
) -> Iterator[Change]:
    name = application.name
    if running is None:
        yield Change(application=name, name="", before="", after="new")
    elif not from_file:
        if running.settings:
            after = application.settings.model_dump(mode="json")
            before = {key: running.settings[key] for key in after if key in running.settings}
            after = {key: after[key] for key in before}
            yield from _differences(name, "", before, after)
    elif running.config is None:
        # Deployed from a shell's settings: those that the file names may differ.
        named = {key: running.settings.get(key) for key in application.arguments}
        yield from _differences(name, "", named, application.arguments)
        for deployment, options in application.options.items():
            if "num_replicas" in options:
                before = {"num_replicas": running.replicas.get(deployment)}
                after = {"num_replicas": options["num_replicas"]}
                yield from _differences(name, f"{deployment}.", before, after)
    else:
        yield from _differences(name, "", running.config.get("args") or {}, application.arguments)
        deployed = {one["name"]: one for one in running.config.get("deployments") or ()}
        for deployment in sorted(deployed.keys() | application.options.keys()):
            yield from _differences(
                name,
                f"{deployment}.",
                _flat(deployed.get(deployment, {})),
                _flat(application.options.get(deployment, {})),
            )
        if running.status == FAILED:
            yield Change(application=name, name="", before="failed", after="tried again")


def _differences(
    application: str, prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new:
            shown = (_HIDDEN, _HIDDEN) if key in SECRETS else (_text(old), _text(new))
            yield Change(
                application=application, name=f"{prefix}{key}", before=shown[0], after=shown[1]
            )


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif prefix or key != "name":
            flat[f"{prefix}{key}"] = value
    return flat


def _text(value: Any) -> str:
    text = "(default)" if value is None else str(value)
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 1]}…"
