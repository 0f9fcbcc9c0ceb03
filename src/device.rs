//! Where tensors live: `auto`, `cpu` or `cuda:N`.
