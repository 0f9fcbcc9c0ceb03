//! Pairs shared between layers, by the index key the layers name.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{ConvShape, Rulebook, Sites, SparseError};

/// The rulebooks of one forward pass.
///
/// Layers that name the same key share pairs; an inverse convolution names the key of the strided one it undoes.
#[derive(Debug, Default)]
pub struct Rulebooks {
    by_key: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    conv: ConvShape,
    input: Rc<Sites>,
    output: Rc<Sites>,
    rules: Rc<Rulebook>,
}

impl Rulebooks {
    /// Output sites and pairs of a convolution, found at the first use of the key.
    ///
    /// # Errors
    /// [`SparseError::Key`] when the key already stands for another convolution or other sites; those of [`Rulebook::new`].
    pub fn get(&mut self, key: &str, input: &Rc<Sites>, conv: &ConvShape) -> Result<(Rc<Sites>, Rc<Rulebook>), SparseError> {
        if let Some(entry) = self.by_key.get(key) {
            if entry.conv != *conv || !entry.input.same_as(input)? {
                let known = format!("{:?} over {} sites", entry.conv, entry.input.len());
                return Err(SparseError::Key {
                    key: key.to_owned(),
                    known,
                    asked: format!("{conv:?} over {} sites", input.len()),
                });
            }
            return Ok((entry.output.clone(), entry.rules.clone()));
        }
        let output = match conv.kind() {
            super::Kind::Submanifold => input.clone(),
            super::Kind::Strided => Rc::new(input.strided(conv)?),
        };
        let rules = Rc::new(Rulebook::new(input, &output, conv)?);
        let entry = Entry { conv: *conv, input: input.clone(), output: output.clone(), rules: rules.clone() };
        self.by_key.insert(key.to_owned(), entry);
        Ok((output, rules))
    }

    /// Output sites and pairs of the inverse of the strided convolution of that key; `input` are that one's output sites.
    ///
    /// # Errors
    /// [`SparseError::NoStrided`] when there was none; [`SparseError::Key`] when its output sites are others.
    pub fn inverse(&self, key: &str, input: &Rc<Sites>) -> Result<(Rc<Sites>, Rulebook), SparseError> {
        let entry = self.by_key.get(key).ok_or_else(|| SparseError::NoStrided { key: key.to_owned() })?;
        if !entry.output.same_as(input)? {
            let known = format!("a convolution to {} sites", entry.output.len());
            return Err(SparseError::Key {
                key: key.to_owned(),
                known,
                asked: format!("the inverse over {} sites", input.len()),
            });
        }
        Ok((entry.input.clone(), entry.rules.inverse()?))
    }
}
