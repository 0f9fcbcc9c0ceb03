//! One stage's tensor against its golden twin.

use std::fmt;

use tch::{Kind, Tensor};

/// How far a stage may be off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Not at all.
    Exact,
    /// By this much.
    Abs(f64),
    /// By this share of the largest golden magnitude.
    OfMax(f64),
    /// By `relative` of each golden value plus `absolute`.
    Each {
        /// Share of the value.
        relative: f64,
        /// On top.
        absolute: f64,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => write!(f, "exact"),
            Self::Abs(limit) => write!(f, "{limit:.0e}"),
            Self::OfMax(share) => write!(f, "{share:.0e} of max"),
            Self::Each { relative, absolute } => write!(f, "{relative:.0e} of each + {absolute:.0e}"),
        }
    }
}

/// How one stage compares.
#[derive(Debug, Clone, PartialEq)]
pub struct StageResult {
    /// Name of the stage.
    pub stage: String,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Largest absolute difference over the largest golden magnitude.
    pub max_rel: f64,
    /// What was allowed, in words.
    pub limit: String,
    /// Whether it was kept.
    pub within: bool,
    /// Both sides of the worst excess; empty when there is none.
    pub detail: String,
}

impl StageResult {
    /// A stage whose sizes already disagree.
    pub fn mismatch(stage: &str, limit: &str, detail: String) -> Self {
        Self { stage: stage.to_owned(), max_abs: f64::NAN, max_rel: f64::NAN, limit: limit.to_owned(), within: false, detail }
    }
}

/// Compares two tensors of any kind element by element; a NaN on one side only is an excess.
pub fn compare(stage: &str, ours: &Tensor, golden: &Tensor, limit: Limit) -> StageResult {
    if ours.size() != golden.size() {
        let detail = format!("ours has shape {:?}, golden {:?}", ours.size(), golden.size());
        return StageResult::mismatch(stage, &limit.to_string(), detail);
    }
    let mut result = StageResult {
        stage: stage.to_owned(),
        max_abs: 0.0,
        max_rel: 0.0,
        limit: limit.to_string(),
        within: true,
        detail: String::new(),
    };
    if golden.numel() == 0 {
        return result;
    }
    let (ours, golden) =
        (ours.to_kind(Kind::Double).contiguous().view([-1]), golden.to_kind(Kind::Double).contiguous().view([-1]));
    let difference = (&ours - &golden).abs();
    let allowed = match limit {
        Limit::Exact => golden.zeros_like(),
        Limit::Abs(limit) => golden.full_like(limit),
        Limit::OfMax(share) => golden.full_like(share * golden.abs().max().double_value(&[])),
        Limit::Each { relative, absolute } => golden.abs() * relative + absolute,
    };
    let largest = golden.abs().max().double_value(&[]);
    result.max_abs = difference.max().double_value(&[]);
    result.max_rel = if largest > 0.0 { result.max_abs / largest } else { result.max_abs };
    // Written so that a NaN counts as an excess.
    let excess = difference.le_tensor(&allowed).logical_not();
    let n_excess = excess.sum(Kind::Int64).int64_value(&[]);
    if n_excess > 0 {
        let worst = (&difference - &allowed).nan_to_num(f64::INFINITY, f64::INFINITY, 0.0).argmax(None, false).int64_value(&[]);
        result.within = false;
        result.detail = format!(
            "{n_excess} of {} elements; at {worst}: ours {:.9e}, golden {:.9e}, allowed {:.2e}",
            golden.numel(),
            ours.double_value(&[worst]),
            golden.double_value(&[worst]),
            allowed.double_value(&[worst])
        );
    }
    result
}

/// A stage of many things measured alike: (name, absolute difference, share of what it is held to). The worst one decides; a NaN is
/// the worst there is.
pub fn worst<'a>(stage: &str, unit: &str, limit: f64, measured: impl IntoIterator<Item = (&'a str, f64, f64)>) -> StageResult {
    let key = |share: f64| if share.is_nan() { f64::INFINITY } else { share };
    let worst = measured.into_iter().max_by(|a, b| key(a.2).total_cmp(&key(b.2)));
    let (name, max_abs, max_rel) = worst.unwrap_or(("", 0.0, 0.0));
    let within = max_rel <= limit;
    let detail = if within { String::new() } else { format!("`{name}` is off by {max_rel:.3e} {unit}, allowed {limit:.0e}") };
    StageResult { stage: stage.to_owned(), max_abs, max_rel, limit: format!("{limit:.0e} {unit}"), within, detail }
}

/// A stage of values that are equal or not.
pub fn exact<T: PartialEq + std::fmt::Debug>(stage: &str, ours: &T, golden: &T) -> StageResult {
    if ours == golden {
        StageResult {
            stage: stage.to_owned(),
            max_abs: 0.0,
            max_rel: 0.0,
            limit: "exact".to_owned(),
            within: true,
            detail: String::new(),
        }
    } else {
        StageResult::mismatch(stage, "exact", format!("ours {ours:?}, golden {golden:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_over_the_limit_are_named_with_both_sides() {
        let golden = Tensor::from_slice(&[1.0f32, -2.0, 4.0]);
        let ours = Tensor::from_slice(&[1.0f32, -2.0, 4.001]);
        assert!(compare("s", &ours, &golden, Limit::OfMax(1e-3)).within);
        let result = compare("s", &ours, &golden, Limit::OfMax(1e-4));
        assert!(!result.within && result.detail.contains("at 2: ours 4.00099"), "{}", result.detail);
        assert!(!compare("s", &ours, &golden, Limit::Exact).within);
        assert!(compare("s", &golden, &golden, Limit::Exact).within);
    }

    #[test]
    fn nan_and_other_shapes_never_pass() {
        let golden = Tensor::from_slice(&[1.0f32, 2.0]);
        assert!(!compare("s", &Tensor::from_slice(&[1.0f32, f32::NAN]), &golden, Limit::Abs(10.0)).within);
        assert!(!compare("s", &Tensor::from_slice(&[1.0f32]), &golden, Limit::Abs(10.0)).within);
    }
}
