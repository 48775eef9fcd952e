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

    /// The sources of the C interface, in the order of the header.
    const SOURCES: [&str; 7] = ["types", "handle", "lifetime", "save", "load", "lookup", "stats"];

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
        let rendered = comments(&String::from_utf8(rendered).expect("the header is text"));

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

    /// Gives the comments that cbindgen renders QEMU's form.
    fn comments(rendered: &str) -> String {
        let mut lines = rendered.lines();
        let mut out = String::new();
        while let Some(line) = lines.next() {
            let indent = &line[..line.len() - line.trim_start().len()];
            if line.trim() != "/*" {
                out += &format!("{line}\n");
                continue;
            }
            let text: Vec<&str> = lines.by_ref().map(str::trim).take_while(|text| *text != "*/").collect();
            let text = text.join("\n");
            match text.trim_end() {
                one if !one.contains('\n') => out += &format!("{indent}/* {one} */\n"),
                // The header's own, which is written so.
                own if own.starts_with('*') => out += &format!("/*\n {}\n */\n", own.replace('\n', "\n ")),
                many => {
                    let many = many.replace('\n', &format!("\n{indent} * ")).replace(" * \n", " *\n");
                    out += &format!("{indent}/*\n{indent} * {many}\n{indent} */\n");
                }
            }
        }
        out
    }
}
