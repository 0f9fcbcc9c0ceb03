//! Our numbers against golden numbers, stage by stage.
