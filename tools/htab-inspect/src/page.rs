// SPDX-License-Identifier: GPL-2.0-or-later
//! A report as a page: the picture, and the text below it.

use crate::picture;
use crate::report::Report;
use crate::text;

/// The page, which needs nothing but itself.
pub fn html(report: &Report) -> String {
    let escaped = |words: &str| words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let title = escaped(&report.file);
    let text = escaped(&text::text(report, true));
    let picture = picture::svg(report);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body {{ max-width: 62em; margin: 1em auto; font-family: sans-serif }}\n\
         pre {{ overflow-x: auto }}</style></head>\n\
         <body>\n{picture}\n<pre>{text}</pre>\n</body>\n</html>\n"
    )
}
