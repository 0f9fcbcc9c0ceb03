"""What scripts/students.sh trained, as a table on stdout and a picture: students_table.py OUT [PICTURE.svg]"""

import datetime
import json
import pathlib
import statistics
import sys

STUDENTS = ["cp-pillar-v0.64", "cp-pillar-v0.64-s", "cp-pillar-v0.64-xs", "cp-pillar-v0.64-xxs"]
VARIANTS = {
    "plain": "plain",
    "tgi": "+ TGI",
    "tgi_prefix_released": "+ TGI, wired as released",
    "tgi_bn_scale": "+ TGI, channels by scale of the norm",
    "tgi_l1_norm": "+ TGI, channels by sum of magnitudes",
    "logit": "+ PP logit KD",
    "label": "+ label KD, merged as released",
    "label_corrected": "+ label KD, merged as corrected",
    "all": "all three, labels merged as released",
    "all_corrected": "all three, labels merged as corrected",
}
CLASSES = ["Vehicle", "Pedestrian", "Cyclist"]


class Row:
    """One model and its runs; numbers in percent."""

    def __init__(self, name, folders, plain=None):
        metrics = [provenance(folder)["metrics"] for folder in folders]
        self.name = name
        self.seeds = [100 * one["maph_l2"] for one in metrics]
        self.mean = statistics.mean(self.seeds)
        self.spread = statistics.stdev(self.seeds) if len(self.seeds) > 1 else None
        self.gain = None if plain is None else self.mean - plain.mean
        self.classes = [statistics.mean(100 * one.get(f"aph_l2_{name}", 0.0) for one in metrics) for name in CLASSES]

    def markdown(self):
        gain = "" if self.gain is None else f"{self.gain:+.1f}"
        spread = "" if self.spread is None else f"{self.spread:.1f}"
        seeds = ", ".join(f"{value:.1f}" for value in self.seeds)
        cells = [self.name, f"{self.mean:.1f}", spread, gain, *(f"{value:.1f}" for value in self.classes), seeds]
        return "| " + " | ".join(cells) + " |"


def provenance(folder):
    return json.loads((folder / "model" / "provenance.json").read_text())


def rows_of(out):
    rows = [Row("cp-pillar (teacher)", [out / "teacher"])]
    for student in STUDENTS:
        plain = None
        for variant, words in VARIANTS.items():
            folders = sorted(path.parent for path in (out / student / variant).glob("seed*/DONE"))
            if folders:
                row = Row(f"{student}, {words}", folders, plain)
                plain = plain or row
                rows.append(row)
    if (out / "shipped" / "DONE").exists():
        rows.append(Row("cp-pillar-v0.64-xxs, all three, 10 epochs (shipped)", [out / "shipped"]))
    return rows


def picture(rows):
    """Bars of L2 mAPH, with the seeds as dots."""
    left, width, step = 330, 420, 22
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{step * len(rows) + 40}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, row in enumerate(rows):
        y = 10 + step * index
        colour = "#8a8f98" if row.gain is None else "#2f6fb3"
        lines.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{row.name}</text>')
        lines.append(f'<rect x="{left}" y="{y + 2}" width="{row.mean / 100 * width:.1f}" height="{step - 7}" fill="{colour}"/>')
        for seed in row.seeds if row.spread is not None else []:
            lines.append(f'<circle cx="{left + seed / 100 * width:.1f}" cy="{y + step / 2 - 1.5}" r="2.5" fill="black"/>')
        lines.append(f'<text x="{left + max(row.seeds) / 100 * width + 8:.1f}" y="{y + 13}">{row.mean:.1f}</text>')
    lines.append(f'<text x="{left}" y="{step * len(rows) + 30}">L2 mAPH in percent; dots are seeds</text>')
    return "\n".join(lines + ["</svg>"]) + "\n"


def main():
    out = pathlib.Path(sys.argv[1])
    training = provenance(out / "teacher")["training"]
    rows = rows_of(out)
    print(f"Commit {training['revision'][:7]}, {datetime.date.today()}, `scripts/students.sh`. Validation data {training['validation']['sha256'][:12]}.")
    print("L2 mAPH and L2 APH by class in percent, of objects within the range trained on. Spread: standard deviation over seeds.\n")
    head = ["model", "L2 mAPH", "spread", "gain", *CLASSES, "seeds"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" + " ---: |" * (len(head) - 1))
    print("\n".join(row.markdown() for row in rows))
    if len(sys.argv) > 2:
        pathlib.Path(sys.argv[2]).write_text(picture(rows))


main()
