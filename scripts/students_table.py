"""Tables of what scripts/students.sh trained, as Markdown on stdout: students_table.py OUT"""

import datetime
import json
import pathlib
import statistics
import sys

STUDENTS = ["cp-pillar-v0.64", "cp-pillar-v0.64-s", "cp-pillar-v0.64-xs", "cp-pillar-v0.64-xxs"]
VARIANTS = {
    "plain": "plain",
    "tgi": "+ TGI (prefix)",
    "logit": "+ PP logit KD",
    "label": "+ label KD, merged as released",
    "label_corrected": "+ label KD, merged as corrected",
    "all": "all three, merged as released",
    "all_corrected": "all three, merged as corrected",
}
CLASSES = ["Vehicle", "Pedestrian", "Cyclist"]


def provenance(folder):
    return json.loads((folder / "model" / "provenance.json").read_text())


def finished(folder):
    return sorted(path.parent for path in folder.glob("seed*/DONE"))


def figures(folders):
    """Means over seeds of L2 mAPH and the APH of each class, and the spread of the first."""
    metrics = [provenance(folder)["metrics"] for folder in folders]
    maph = [100 * one["maph_l2"] for one in metrics]
    classes = [statistics.mean(100 * one.get(f"aph_l2_{name}", 0.0) for one in metrics) for name in CLASSES]
    spread = statistics.stdev(maph) if len(maph) > 1 else None
    return maph, classes, spread


def row(name, folders, plain):
    maph, classes, spread = figures(folders)
    gain = "" if plain is None else f"{statistics.mean(maph) - plain:+.2f}"
    seeds = ", ".join(f"{value:.2f}" for value in maph)
    spread = "" if spread is None else f"{spread:.2f}"
    cells = [name, f"{statistics.mean(maph):.2f}", spread, gain, *(f"{value:.2f}" for value in classes), seeds]
    print("| " + " | ".join(cells) + " |")


def main():
    out = pathlib.Path(sys.argv[1])
    head = ["model", "L2 mAPH", "spread", "gain", *CLASSES, "seeds"]
    teacher = provenance(out / "teacher")
    training = teacher["training"]
    print(f"Commit {training['revision'][:7]}, {datetime.date.today()}, `scripts/students.sh`. Validation data {training['validation']['sha256'][:12]}.")
    print("L2 mAPH and L2 APH by class in percent, of objects within the range trained on. Spread: standard deviation over seeds.\n")
    print("| " + " | ".join(head) + " |\n|" + " --- |" + " ---: |" * (len(head) - 1))
    row("cp-pillar (teacher)", [out / "teacher"], None)
    for student in STUDENTS:
        runs = {variant: finished(out / student / variant) for variant in VARIANTS}
        plain = statistics.mean(figures(runs["plain"])[0]) if runs["plain"] else None
        for variant, folders in runs.items():
            if folders:
                row(f"{student}, {VARIANTS[variant]}", folders, plain if variant != "plain" else None)


main()
