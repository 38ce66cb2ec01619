"""`lxpy doctor`: what the host lacks for running instances, and the remedy."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from itertools import groupby

import click

from lxpy.cli.declare import command
from lxpy.cli.session import Session
from lxpy.doctor import Finding, Host, Verdict, examine

_MARKS = {
    Verdict.OK: ("ok", "green"),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.FAILURE: ("missing", "red"),
}


@command(None, "doctor", short_help="Examine this host for what instances need")
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Format of the report",
)
@click.option("--all/--problems", "everything", default=True, help="All findings or problems only")
def doctor(session: Session, form: str, everything: bool) -> int:
    """Examine this host: kernel features, programs and limits, with remedies.

    The exit status is 1 if something is missing that instances can't run without.
    """
    state_dir = os.environ.get("LXPY_DIR", "/var/lib/lxpy")
    findings = examine(Host(state_dir=state_dir))
    shown = [f for f in findings if everything or f.verdict is not Verdict.OK]
    if form == "json":
        click.echo(json.dumps([asdict(finding) for finding in shown], indent=2))
    else:
        _print(shown)
        _conclude(findings)
    return int(any(finding.verdict is Verdict.FAILURE for finding in findings))


def _print(findings: list[Finding]) -> None:
    width = max((len(finding.subject) for finding in findings), default=0)
    for area, members in groupby(findings, key=lambda finding: finding.area):
        click.secho(area.capitalize(), bold=True)
        for finding in members:
            mark, colour = _MARKS[finding.verdict]
            text = click.style(f"{mark:<7}", fg=colour)
            click.echo(f"  {text}  {finding.subject:<{width}}  {finding.text}")
            if finding.remedy:
                click.echo(f"  {'':<7}  {'':<{width}}  -> {finding.remedy}")


def _conclude(findings: list[Finding]) -> None:
    counts = {verdict: sum(f.verdict is verdict for f in findings) for verdict in Verdict}
    missing, warnings = counts[Verdict.FAILURE], counts[Verdict.WARNING]
    if missing:
        click.echo(f"\n{missing} missing, {warnings} warnings: instances can't run here yet.")
    elif warnings:
        click.echo(f"\nReady to run instances, with {warnings} warnings.")
    else:
        click.echo("\nReady to run instances.")
