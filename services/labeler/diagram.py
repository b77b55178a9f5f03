"""The round's state machine as an SVG picture, drawn from the table in `states.py`."""

from html import escape

from shared.states import ROUND_TABLE, STAGES, RoundState

BOX_W, BOX_H, GAP, TOP, DOWN = 124, 40, 92, 24, 104  # pixels


def draw(current: str | None = None) -> str:
    """Return the diagram as SVG with the state `current` marked; colours come from the page's style sheet."""
    chain = [*STAGES, RoundState.DONE]
    left = {state: 8 + index * (BOX_W + GAP) for index, state in enumerate(chain)}
    left[RoundState.FAILED] = left[RoundState.TRAINING_REWARD]
    top = dict.fromkeys(chain, TOP) | {RoundState.FAILED: TOP + DOWN}
    width, height = left[RoundState.DONE] + BOX_W + 8, TOP + DOWN + BOX_H + 8
    parts = [
        f'<svg class="diagram" viewBox="0 0 {width} {height}" role="img" aria-label="The states of a round">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    for row in ROUND_TABLE:
        for source in row.sources:
            hint = f"<title>{escape(row.event)}: {escape(row.when)}</title>"
            if row.target == RoundState.FAILED or row.target is None:
                continue
            x, y = left[source] + BOX_W, TOP + BOX_H / 2
            parts.append(f'<path class="edge" d="M{x} {y}H{left[row.target] - 2}">{hint}</path>')
            label = escape(row.event.replace("_", " "))
            parts.append(f'<text class="event" x="{x + GAP / 2}" y="{y - 7}">{label}</text>')
    for row in ROUND_TABLE:
        if row.target == RoundState.FAILED:
            for index, source in enumerate(row.sources):
                start, end = left[source] + BOX_W / 2, left[RoundState.FAILED] + BOX_W * (index + 1) / 4
                low = TOP + DOWN
                path = f"M{start} {TOP + BOX_H}C{start} {low - 20} {end} {TOP + BOX_H + 20} {end} {low - 2}"
                hint = f"<title>{escape(row.event)}: {escape(row.when)}; retried goes back</title>"
                parts.append(f'<path class="edge back" d="{path}">{hint}</path>')
    for state in [*chain, RoundState.FAILED]:
        mark = f" current {state}" if state == current else ""
        name = escape(state.replace("_", " "))
        parts.append(
            f'<g class="state{mark}"><rect x="{left[state]}" y="{top[state]}" width="{BOX_W}" '
            f'height="{BOX_H}" rx="10"/><text x="{left[state] + BOX_W / 2}" '
            f'y="{top[state] + BOX_H / 2 + 5}">{name}</text></g>'
        )
    return "".join([*parts, "</svg>"])
