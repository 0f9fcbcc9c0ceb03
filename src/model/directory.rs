//! The directory a model lives in: weights.safetensors, spec.yaml, SHA256SUMS, provenance.json.
