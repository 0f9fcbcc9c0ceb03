//! Names of the data's classes against the model's.

use std::collections::BTreeMap;

use super::{Finding, Frames, Severity, Subject, counted};

/// What other data sets call the classes of the built-in specs, in lower case without blanks, dots, underscores and hyphens.
const OTHER_NAMES: [(&str, &[&str]); 3] = [
    ("vehicle", &["car", "cars", "van", "truck", "bus", "auto", "vehicles", "vehiclecar", "typevehicle", "trailer", "tram"]),
    ("pedestrian", &["person", "people", "human", "pedestrians", "personsitting", "humanpedestrianadult", "typepedestrian"]),
    ("cyclist", &["bicycle", "bike", "bicyclist", "cyclists", "rider", "vehiclebicycle", "typecyclist", "motorcycle"]),
];

/// Names are alike when so many letters, of those of the longer one, have to be changed at most.
const MAX_CHANGED: f64 = 0.34;

/// Every check of this file.
pub fn check(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let mut labels_of: BTreeMap<&str, usize> = BTreeMap::new();
    for label in frames.samples.iter().flat_map(|sample| sample.labels.iter().flatten()) {
        *labels_of.entry(&label.class).or_default() += 1;
    }
    if labels_of.is_empty() {
        return;
    }
    let classes = subject.spec.classes.join(", ");
    for (class, n) in &labels_of {
        if subject.model_class(class).is_some() {
            continue;
        }
        if let Some(renamed) = subject.class_names.get(*class) {
            let measured = format!("class_names turns `{class}` into `{renamed}`, which is no class of the model ({classes})");
            let advice = format!("name a class of the model: class_names: {{{class}: NAME}}");
            findings.push(Finding::new(Severity::Error, "class-names", measured, advice));
        } else if let Some(near) = nearest(class, &subject.spec.classes) {
            let measured = format!("{} called `{class}`, which the model does not know; it has {classes}", counted(*n, "label"));
            let advice = format!(
                "if these are meant, class_names: {{{class}: {near}}} in the run's YAML, or `classes={class}:{near}` behind the source; \
                 as it is they are background"
            );
            findings.push(Finding::new(Severity::Error, "class-names", measured, advice));
        } else {
            let measured = format!("{} called `{class}`, no class of the model, so background to it", counted(*n, "label"));
            let advice = format!("nothing, if that is meant; else class_names: {{{class}: NAME}} with one of {classes}");
            findings.push(Finding::new(Severity::Note, "class-names", measured, advice));
        }
    }
    let present: Vec<&str> = labels_of.keys().filter_map(|class| subject.model_class(class)).collect();
    for class in subject.spec.classes.iter().filter(|class| !present.contains(&class.as_str())) {
        let measured = format!("no label of the frames that were read is a `{class}`");
        let advice =
            "read more frames (--frames), add data with such objects, or take the class out of the spec's classes".to_owned();
        findings.push(Finding::new(Severity::Warning, "class-without-labels", measured, advice));
    }
}

/// The model's class that a name may stand for.
fn nearest<'a>(class: &str, known: &'a [String]) -> Option<&'a str> {
    let plain = plain(class);
    let synonym =
        |name: &&String| OTHER_NAMES.iter().any(|(ours, others)| *ours == self::plain(name) && others.contains(&plain.as_str()));
    if let Some(name) = known.iter().find(synonym) {
        return Some(name);
    }
    let changed = |name: &String| {
        let name = self::plain(name);
        let longer = name.chars().count().max(plain.chars().count()).max(1);
        strsim::levenshtein(&name, &plain) as f64 / longer as f64
    };
    let best = known.iter().min_by(|a, b| changed(a).total_cmp(&changed(b)))?;
    (changed(best) <= MAX_CHANGED).then_some(best)
}

/// Lower-case letters and digits.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_data_sets_find_the_models() {
        let known = ["Vehicle", "Pedestrian", "Cyclist"].map(str::to_owned);
        let cases = [
            ("vehicle", Some("Vehicle")),
            ("Car", Some("Vehicle")),
            ("TYPE_VEHICLE", Some("Vehicle")),
            ("vehicle.car", Some("Vehicle")),
            ("Person_sitting", Some("Pedestrian")),
            ("Pedestrain", Some("Pedestrian")),
            ("human.pedestrian.adult", Some("Pedestrian")),
            ("Bicycle", Some("Cyclist")),
            ("Sign", None),
            ("DontCare", None),
            ("movable_object.barrier", None),
            ("", None),
        ];
        for (class, expected) in cases {
            assert_eq!(nearest(class, &known), expected, "{class}");
        }
    }
}
