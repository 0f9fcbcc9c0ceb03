//! Gives every binary and test the absolute path of libtorch, so that nothing has to be exported to run them.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Published by torch-sys (`links = "tch"`) to its direct dependents; absent with its doc-only feature.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
