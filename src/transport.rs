//! The seam to the middleware, at serialised CDR.
