//! The networks, their spec, and the directory both live in.

pub mod directory;
pub mod init;
pub mod params;
pub mod spec;

use params::ParamDecl;
use spec::ModelSpec;

/// Every tensor the network of a spec needs, in the reference's order.
pub fn expected_params(_spec: &ModelSpec) -> Vec<ParamDecl> {
    unimplemented!("the lead writes this")
}
