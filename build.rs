// SPDX-License-Identifier: GPL-2.0-or-later
//! Holds the committed C header against the sources that it describes.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "header")]
    header::check();
}

#[cfg(feature = "header")]
mod header {
    use std::path::Path;
    use std::{env, fs};

    const COMMITTED: &str = "include/spapr_htab.h";
    /// Set to 1 to write the header instead of checking it.
    const REGENERATE: &str = "SPAPR_HTAB_REGENERATE_HEADER";

    /// The sources of the C interface, in the order in which the header tells them.
    const SOURCES: [&str; 6] = ["types", "handle", "save", "load", "lookup", "stats"];

    pub fn check() {
        println!("cargo::rerun-if-changed={COMMITTED}");
        println!("cargo::rerun-if-changed=cbindgen.toml");
        println!("cargo::rerun-if-env-changed={REGENERATE}");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
        // The version macros are composed from the package's own version, so that they cannot differ from it.
        let parts = ["MAJOR", "MINOR", "PATCH"].map(|part| {
            let value = env::var(format!("CARGO_PKG_VERSION_{part}")).expect("cargo sets the version");
            format!("#define SPAPR_HTAB_VERSION_{part} {value}\n")
        });
        let includes = config.after_includes.take().unwrap_or_default();
        config.after_includes = Some(format!("{includes}\n{}", parts.concat().trim_end()));
        let mut builder = cbindgen::Builder::new().with_config(config);
        for source in SOURCES {
            let path = format!("src/capi/{source}.rs");
            println!("cargo::rerun-if-changed={path}");
            builder = builder.with_src(root.join(path));
        }
        let mut rendered = Vec::new();
        builder.generate().expect("the C interface renders").write(&mut rendered);
        // The C rules stand once at the header's top; rustdoc's section on each function is for Rust callers.
        let rendered = String::from_utf8(rendered).expect("the header is text");
        let rendered = rendered.replace("//\n// # Safety\n// The contract of [`crate::capi`].\n", "");

        let committed = root.join(COMMITTED);
        if env::var_os(REGENERATE).is_some_and(|value| value == "1") {
            fs::write(&committed, &rendered).expect("the header can be written");
        }
        if fs::read(&committed).unwrap_or_default() != rendered.as_bytes() {
            println!(
                "cargo::error={COMMITTED} is not what the sources say. Regenerate it: {REGENERATE}=1 cargo build"
            );
        }
    }
}
