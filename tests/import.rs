//! Tests of `import`, `model::directory` and `model::init`.

mod init;
