"""Draws dashboards with the results of their queries, for visual inspection.

    python3 render.py PROMETHEUS_URL SECONDS DIRECTORY DASHBOARD.json...

It imitates Grafana: each panel has its place in the grid, its title, unit, colours,
stacking, limits and legend. It needs matplotlib.
"""

import math
import re
import sys
from datetime import datetime
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as dates
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from ask import STEP_SECONDS, Prometheus
from board import boards, queries

ROW_INCHES = 0.42
COLUMNS = 24
PALETTE = ["#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#37872d", "#e0b400"]
COLOURS = {
    "green": "#73bf69", "yellow": "#f2cc0c", "orange": "#ff9830", "red": "#f2495c",
    "dark-red": "#c4162a", "blue": "#5794f2", "light-blue": "#8ab8ff", "purple": "#b877d9",
    "text": "#d8d9da", "transparent": "#00000000",
}
BACKGROUND, CARD, TEXT, FAINT = "#111217", "#181b1f", "#d8d9da", "#8e8e93"


def scaled(value, steps, base):
    """A number with the largest prefix that does not exceed it."""
    for size, prefix in steps:
        if abs(value) >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}{base}"


def formatted(value, unit, decimals=None):
    """A value in its unit, in Grafana's style."""
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f}%"
    if unit == "bytes":
        return scaled(value, [(2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB")], " B")
    if unit == "s":
        return scaled(value, [(86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")], " s")
    suffix = {"reqps": " req/s", "cps": " /s"}.get(unit, "")
    return scaled(value, [(1e6, "M"), (1e4, "K")], "") + suffix if decimals is None else f"{value:.{decimals}f}{suffix}"


def threshold_colour(steps, value):
    """The colour of the highest threshold that the value has reached."""
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS.get(reached[-1], TEXT)


def named(query, labels):
    """The legend of a series."""
    name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), query.legend)
    return name or str(labels)


def series_of(prometheus, panel):
    """All series of a panel: name, times, values."""
    for query in queries(panel):
        for labels, points in prometheus.series(query):
            times = [datetime.fromtimestamp(at) for at, _ in points]
            yield named(query, labels), times, [value for _, value in points]


def draw_stat(axes, panel, prometheus):
    """A single number in the colour of its threshold."""
    axes.axis("off")
    values = next((values for _, _, values in series_of(prometheus, panel)), None)
    if values is None:
        return
    defaults = panel["fieldConfig"]["defaults"]
    if panel["options"]["graphMode"] == "area":
        axes.fill_between(range(len(values)), values, alpha=0.25, color="#5794f2")
        axes.set_ylim(0, max(values) * 3 or 1)
    text = formatted(values[-1], defaults["unit"], defaults.get("decimals"))
    colour = threshold_colour(defaults["thresholds"]["steps"], values[-1])
    axes.text(0.5, 0.55, text, transform=axes.transAxes, ha="center", va="center", fontsize=20, color=colour)


def draw_lines(axes, panel, prometheus):
    """Lines over time, stacked if the panel says so."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    fixed = {
        rule["matcher"]["options"]: rule["properties"][0]["value"]["fixedColor"]
        for rule in panel["fieldConfig"]["overrides"]
    }
    below = {}
    for number, (name, times, values) in enumerate(series_of(prometheus, panel)):
        colour = COLOURS[fixed[name]] if name in fixed else PALETTE[number % len(PALETTE)]
        if custom["stacking"]["mode"] == "normal":
            bottom = [below.get(at, 0.0) for at in times]
            values = [low + value for low, value in zip(bottom, values)]
            below.update(zip(times, values))
            axes.fill_between(times, bottom, values, color=colour, alpha=0.4, step=None, lw=0)
        axes.plot(times, values, color=colour, lw=1.2, label=name)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value, defaults["unit"])))
    if defaults.get("min") == 0:
        axes.set_ylim(bottom=0)
    if "max" in defaults:
        axes.set_ylim(top=defaults["max"])
    clock(axes)
    legend(axes, panel)


def legend(axes, panel):
    """The names of the series, below or to the right."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1), "ncol": panel["gridPos"]["w"] // 3}
    if panel["options"]["legend"]["placement"] == "right":
        left, bottom, width, height = axes.get_position().bounds
        axes.set_position((left, bottom, width * 0.75, height))
        place = {"loc": "upper left", "bbox_to_anchor": (1, 1.1)}
    if axes.get_lines():
        axes.legend(**place, fontsize=5.5, frameon=False, labelcolor=TEXT)


def draw_heatmap(axes, panel, prometheus):
    """Buckets over time; cumulative counts are turned into counts per bucket."""
    buckets = {}
    for query in queries(panel):
        for labels, points in prometheus.series(query):
            buckets[float(labels["le"])] = dict(points)
    bounds = sorted(buckets)
    times = sorted(buckets[bounds[0]])
    grid = [
        [max(0.0, buckets[le].get(at, 0) - (buckets[bounds[n - 1]].get(at, 0) if n else 0)) for at in times]
        for n, le in enumerate(bounds)
    ]
    axes.pcolormesh([datetime.fromtimestamp(at) for at in times], range(len(bounds)), grid, cmap="inferno", shading="nearest")
    axes.set_yticks(range(len(bounds)), [formatted(le, "s") if math.isfinite(le) else "+Inf" for le in bounds])
    clock(axes)


def draw_timeline(axes, panel, prometheus):
    """One row per state over time."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left + width * 0.15, bottom, width * 0.85, height))
    names = []
    for row, (name, times, values) in enumerate(series_of(prometheus, panel)):
        names.append(name)
        for at, value in zip(times, values):
            width = STEP_SECONDS / 86400
            axes.barh(row, width, left=dates.date2num(at), height=0.8, color=threshold_colour(steps, value))
    axes.set_yticks(range(len(names)), names)
    axes.xaxis_date()
    clock(axes)


def draw_table(axes, panel, prometheus):
    """Rows with the labels and the value of each series."""
    axes.axis("off")
    organised = panel["transformations"][0]["options"]
    columns = sorted(organised["indexByName"], key=organised["indexByName"].get)
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    rows = [
        [labels.get(column, formatted(points[-1][1], unit, defaults.get("decimals"))) for column in columns]
        for query in queries(panel)
        for labels, points in prometheus.series(query)
    ]
    heads = [organised["renameByName"].get(column, column) for column in columns]
    lines = ["  ".join(f"{cell:<26}" for cell in row) for row in [heads, *rows[:12]]]
    axes.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=7, color=TEXT)


def clock(axes):
    """Formats the time axis."""
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=5))
    axes.tick_params(colors=FAINT, labelsize=6, length=0)
    axes.grid(color="#2c2f34", lw=0.5)
    axes.set_facecolor(CARD)
    for side in axes.spines.values():
        side.set_visible(False)


DRAW = {
    "stat": draw_stat,
    "timeseries": draw_lines,
    "heatmap": draw_heatmap,
    "state-timeline": draw_timeline,
    "table": draw_table,
}


def picture(board, prometheus, directory):
    """Writes the dashboard as a PNG file."""
    panels = board.json["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    inches = (COLUMNS * ROW_INCHES * 1.6, rows * ROW_INCHES)
    figure = plt.figure(figsize=inches, facecolor=BACKGROUND)
    for panel in panels:
        place = panel["gridPos"]
        left, bottom = place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / rows
        width, tall = place["w"] / COLUMNS, place["h"] / rows
        heading = {"color": TEXT, "va": "top", "y": bottom + tall - 0.3 / rows, "x": left + 0.008}
        if panel["type"] == "row":
            figure.text(s=panel["title"], fontsize=12, weight="bold", **heading)
            continue
        corner, size = (left + 0.003, bottom + 0.1 / rows), (width - 0.006, tall - 0.2 / rows)
        figure.add_artist(plt.Rectangle(corner, *size, color=CARD, zorder=-1))
        figure.text(s=panel["title"], fontsize=8, **heading)
        small = panel["type"] in ("stat", "table")
        margin, legend_rows = (0.01, 0.3) if small else (0.035, 1.7)
        axes = figure.add_axes(
            (left + margin, bottom + legend_rows / rows, width - margin - 0.01, tall - (legend_rows + 1.2) / rows)
        )
        axes.set_facecolor(CARD)
        DRAW[panel["type"]](axes, panel, prometheus)
    path = Path(directory) / f"{board.path.stem}.png"
    figure.savefig(path, dpi=90, facecolor=BACKGROUND)
    print(path)


def main():
    prometheus = Prometheus(sys.argv[1], int(sys.argv[2]))
    Path(sys.argv[3]).mkdir(parents=True, exist_ok=True)
    for board in boards():
        picture(board, prometheus, sys.argv[3])


if __name__ == "__main__":
    main()
