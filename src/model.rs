//! The networks, their spec, and the directory both live in.

pub mod anchor_head;
pub mod anchors;
pub mod backbone;
pub mod backbone_3d;
pub mod center_head;
pub mod directory;
mod flat_vfe;
pub mod fused;
pub mod init;
pub mod layers;
pub mod net;
pub mod params;
pub mod pillar_vfe;
mod segment;
pub mod spec;
mod winograd;

use params::{ParamDecl, Params};
use spec::ModelSpec;

/// Every tensor the network of a spec needs, in the reference's order.
pub fn expected_params(spec: &ModelSpec) -> Vec<ParamDecl> {
    let params = Params::list();
    let _ = net::Net::new(&params, spec);
    params.into_decls()
}
