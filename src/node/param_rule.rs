//! What values a parameter allows, checked and put in words by one type, so that table, messages and check agree.

use std::fmt;

use super::autoware::{LABELS, parse_label};
use super::param_value::ParamValue;
use crate::cloud::Feature;

/// What values a parameter allows beyond its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// All.
    Any,
    /// From the first to the second, both included.
    Range(f64, f64),
    /// From the first, included, to the second, excluded.
    HalfOpen(f64, f64),
    /// Above zero.
    Positive,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// At least one character.
    NonEmpty,
    /// `auto`, `cpu`, `cuda:N`.
    Device,
    /// Items of the form `feature=number`, for features a cloud may lack.
    Fills,
    /// Items of the form `class=LABEL`, with labels of Autoware.
    Labels,
}

/// Features that a sensor may lack and `fill_absent` may name.
pub const FILLABLE: [Feature; 3] = [Feature::Intensity, Feature::Elongation, Feature::TimeOffset];

impl Rule {
    /// Whether a value of the declared type keeps the rule.
    pub fn allows(&self, value: &ParamValue) -> bool {
        match (self, value) {
            (Self::Any, _) => true,
            (_, ParamValue::Integer(whole)) => self.allows_number(*whole as f64),
            (_, ParamValue::Double(number)) => self.allows_number(*number),
            (_, ParamValue::String(text)) => self.allows_text(text),
            (Self::Fills, ParamValue::List(items)) => {
                items.iter().all(|item| matches!(item, ParamValue::String(text) if parse_fill(text).is_some()))
            }
            (Self::Labels, ParamValue::List(items)) => {
                items.iter().all(|item| matches!(item, ParamValue::String(text) if parse_label(text).is_some()))
            }
            _ => false,
        }
    }

    fn allows_number(&self, number: f64) -> bool {
        match *self {
            Self::Range(low, high) => low <= number && number <= high,
            Self::HalfOpen(low, high) => low <= number && number < high,
            Self::Positive => 0.0 < number && number.is_finite(),
            _ => false,
        }
    }

    fn allows_text(&self, text: &str) -> bool {
        match self {
            Self::OneOf(words) => words.contains(&text),
            Self::NonEmpty => !text.is_empty(),
            Self::Device => {
                let is_index =
                    |digits: &str| !digits.is_empty() && digits.len() < 4 && digits.bytes().all(|b| b.is_ascii_digit());
                text == "auto" || text == "cpu" || text.strip_prefix("cuda:").is_some_and(is_index)
            }
            _ => false,
        }
    }
}

/// `feature=number` of `fill_absent`.
pub(super) fn parse_fill(text: &str) -> Option<(Feature, f32)> {
    let (name, number) = text.split_once('=')?;
    let feature = FILLABLE.into_iter().find(|feature| feature.name() == name.trim())?;
    let number: f32 = number.trim().parse().ok()?;
    number.is_finite().then_some((feature, number))
}

/// In words that go on after the name of a type.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Range(low, high) => write!(f, "in [{low}, {high}]"),
            Self::HalfOpen(low, high) => write!(f, "in [{low}, {high})"),
            Self::Positive => f.write_str("above 0"),
            Self::OneOf(words) => {
                f.write_str("out of ")?;
                for (word_idx, word) in words.iter().enumerate() {
                    write!(f, "{}`{word}`", if word_idx == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::NonEmpty => f.write_str("that is not empty"),
            Self::Device => f.write_str("`auto`, `cpu` or `cuda:N`"),
            Self::Fills => {
                write!(f, "of `feature=number`, features {}", FILLABLE.map(|name| format!("`{name}`")).join(", "))
            }
            Self::Labels => write!(f, "of `class=LABEL`, labels {}", LABELS.map(|(name, _)| format!("`{name}`")).join(", ")),
        }
    }
}
