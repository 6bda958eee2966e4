"""What a run of the benchmark says: its figures as a table, one JSON value and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUTURE, FLOOR = "suture", "floor-a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one contender did with ``accounts`` accounts. ``failed`` says why it counts for nothing.

    Of the ``cloud`` "azure" the accounts are subscriptions: nothing of AWS is compared with them.

    ``seconds`` and ``cpu_seconds`` (user and system, its whole process tree) are of the scan alone;
    ``start_seconds`` is what it took before. ``peak_rss_mb`` is the tree's peak; ``calls`` are what
    the simulator served. ``simulator_cpu_seconds`` is the simulator's own share of the machine.
    ``without_servers`` has cpu_seconds and peak_rss_mb again, for a contender that brings servers.
    """

    contender: str
    accounts: int
    cloud: str = "aws"
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    calls: int = 0
    peak_rss_mb: float = 0.0
    start_seconds: float = 0.0
    simulator_cpu_seconds: float = 0.0
    findings: int | None = None
    without_servers: Mapping[str, float] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    failed: str = ""

    @property
    def scanned(self) -> str:
        return f"{self.accounts:,} {'subscriptions' if self.cloud == 'azure' else 'accounts'}"

    @property
    def accounts_per_s(self) -> float:
        return self.accounts / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """The figures by name; a failed contender has its reason and no figures."""
        if self.failed:
            return {"failed": self.failed}
        figures: dict[str, Any] = {
            "accounts_per_s": round(self.accounts_per_s, 2),
            "cpu_ms_per_account": round(1000 * self.cpu_seconds / self.accounts, 2),
            "calls_per_account": round(self.calls / self.accounts, 2),
            "peak_rss_mb": round(self.peak_rss_mb, 1),
            "seconds": round(self.seconds, 2),
            "start_seconds": round(self.start_seconds, 2),
            "simulator_cpu_seconds": round(self.simulator_cpu_seconds, 2),
        }
        if self.findings is not None:
            figures["findings"] = self.findings
        if self.without_servers:
            cpu = self.without_servers["cpu_seconds"]
            figures["without_servers"] = {
                "cpu_ms_per_account": round(1000 * cpu / self.accounts, 2),
                "peak_rss_mb": round(self.without_servers["peak_rss_mb"], 1),
            }
        return figures | ({"notes": dict(self.notes)} if self.notes else {})


def median(rounds: Sequence[Figures]) -> Figures:
    """The middle round by accounts/s (the slower of two); a failed one if any round failed."""
    failed = [one for one in rounds if one.failed]
    by_speed = sorted(rounds, key=lambda one: one.accounts_per_s)
    return failed[0] if failed else by_speed[(len(by_speed) - 1) // 2]


def ratio_to_floor(results: Sequence[Figures]) -> float | None:
    """Suture's accounts/s over floor A's, at the largest number of accounts that both scanned."""
    mine, floor = _by_accounts(results, SUTURE), _by_accounts(results, FLOOR)
    both = mine.keys() & floor.keys()
    if not both:
        return None
    largest = max(both)
    return round(mine[largest].accounts_per_s / floor[largest].accounts_per_s, 3)


def suture_times(one: Figures, results: Sequence[Figures]) -> float | None:
    """How many times ``one``'s accounts/s Suture does.

    At the same number of accounts if Suture scanned it, else at Suture's largest: a rate. None
    where there is nothing to compare: of the whole of Suture only AWS is measured.
    """
    mine = _by_accounts(results, SUTURE)
    if one.failed or not one.accounts_per_s or not mine or one.cloud != "aws":
        return None
    return mine.get(one.accounts, mine[max(mine)]).accounts_per_s / one.accounts_per_s


def _by_accounts(results: Sequence[Figures], contender: str) -> dict[int, Figures]:
    return {one.accounts: one for one in results if one.contender == contender and not one.failed}


def as_json(results: Sequence[Figures], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The whole run: the ratio on top, then the figures by contender and number of accounts."""
    contenders: dict[str, dict[str, Any]] = {}
    for one in results:
        figures = one.as_json()
        times = suture_times(one, results)
        if times is not None and one.contender != SUTURE:
            figures["suture_is_times_as_fast"] = round(times, 2)
        contenders.setdefault(one.contender, {})[str(one.accounts)] = figures
    return {"ratio_to_floor": ratio_to_floor(results), "contenders": contenders, **settings}


NAMES = {
    "suture": "**Suture**, with Prefect and PostgreSQL",
    "suture-engine": "its read engine alone, one process",
    "suture-table": "its read engine with the whole AWS rule table",
    "suture-azure": "Azure: its read engine alone, by subscription",
    "suture-azure-table": "Azure: its read engine with the whole Azure rule table",
    "floor-a": "floor A: signed aiohttp, evaluates nothing",
    "floor-b": "floor B: a minimal client, evaluates nothing",
    "boto3": "boto3, shared clients",
    "c7n-org": "Cloud Custodian, c7n-org",
    "prowler": "Prowler",
}


def markdown(record: Mapping[str, Any]) -> str:
    """A run's record, as ``as_json`` gives it, as the table of README."""
    rows = []
    for name, sizes in record["contenders"].items():
        for accounts, figures in sizes.items():
            if "failed" in figures:
                continue
            compared = figures.get("suture_is_times_as_fast")
            times = "" if compared is None else f"{_short(compared)} ×"
            speed, calls = figures["accounts_per_s"], figures["calls_per_account"]
            rows.append(
                (
                    NAMES.get(name, name),
                    f"{int(accounts):,}",
                    _short(speed),
                    _short(figures["cpu_ms_per_account"]),
                    _short(calls),
                    f"{figures['peak_rss_mb']:,.0f}",
                    times,
                )
            )
            if own := figures.get("without_servers"):
                cpu, memory = _short(own["cpu_ms_per_account"]), f"{own['peak_rss_mb']:,.0f}"
                rows.append(("… without the two servers", "", "", cpu, "", memory, ""))
    heads = ("", "Accounts", "Accounts/s", "CPU ms each", "Calls each", "Peak MB", "Suture is")
    lines = [heads, (":--", *("--:",) * (len(heads) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


HEADINGS = (
    "contender",
    "accounts",
    "accounts/s",
    "CPU ms/account",
    "calls/account",
    "peak MB",
    "suture is",
)


def table(results: Sequence[Figures]) -> str:
    """The figures as aligned lines of text, failed contenders with their reason."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for one in results:
        if one.failed:
            rows.append((one.contender, f"{one.accounts:,}", f"failed: {one.failed}"))
            continue
        times = suture_times(one, results)
        rows.append(
            (
                one.contender,
                f"{one.accounts:,}",
                _short(one.accounts_per_s),
                _short(1000 * one.cpu_seconds / one.accounts),
                _short(one.calls / one.accounts),
                f"{one.peak_rss_mb:,.0f}",
                "" if times is None or one.contender == SUTURE else f"{_short(times)} x",
            )
        )
        if one.without_servers:
            rows.append(
                (
                    "  without servers",
                    *("", ""),
                    _short(1000 * one.without_servers["cpu_seconds"] / one.accounts),
                    "",
                    f"{one.without_servers['peak_rss_mb']:,.0f}",
                    "",
                )
            )
    whole = [row for row in rows if len(row) == len(HEADINGS)]
    widths = [max(len(row[column]) for row in whole) for column in range(len(HEADINGS))]
    widths[0] = max(len(row[0]) for row in rows)
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = row
    cells = [first.ljust(widths[0])]
    if len(row) < len(HEADINGS):
        return "  ".join([*cells, others[0].rjust(widths[1]), *others[1:]]).rstrip()
    return "  ".join([*cells, *map(str.rjust, others, widths[1:])]).rstrip()


def _short(number: float) -> str:
    """Two or three figures: 0.012, 0.83, 1.8, 17.7, 121, 1,995."""
    if number < 1:
        return f"{number:.2f}" if number >= 0.1 else f"{number:.3f}"
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"


def plot(results: Sequence[Figures], caption: str, path: Path) -> None:
    """Accounts/s and CPU of each contender, at the most accounts it scanned, as an SVG or PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    largest = {one.contender: one for one in results if not one.failed and one.accounts_per_s}
    for one in results:
        if not one.failed and one.accounts >= largest[one.contender].accounts:
            largest[one.contender] = one
    shown = sorted(largest.values(), key=lambda one: one.accounts_per_s)
    names = [f"{one.contender}\n{one.scanned}" for one in shown]
    colours = ["#c2410c" if one.contender.startswith(SUTURE) else "#94a3b8" for one in shown]
    style = {"svg.hashsalt": "suture", "svg.fonttype": "path", "font.size": 9}
    with mpl.rc_context(style):
        figure, (left, right) = pyplot.subplots(
            1, 2, sharey=True, figsize=(9, 0.55 * len(shown) + 1.4), layout="constrained"
        )
        for axes, title, values in (
            (left, "accounts a second (more is better)", [one.accounts_per_s for one in shown]),
            (
                right,
                "CPU ms an account (less is better)",
                [1000 * one.cpu_seconds / one.accounts for one in shown],
            ),
        ):
            bars = axes.barh(names, values, color=colours)
            axes.bar_label(bars, [_short(value) for value in values], padding=3)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:,g}")
            axes.set_title(title, fontsize=10)
            axes.margins(x=0.18)
            axes.spines[["top", "right"]].set_visible(False)
        figure.supxlabel(f"{caption}. Logarithmic scales.", fontsize=8)
        # No date and no version of the library in the file: the same figures give the same file.
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)
        pyplot.close(figure)
