# SPDX-License-Identifier: GPL-2.0-or-later
"""All of cargo-mutants' mutants in one tree: a function has its own body and each mutant's, and the variable of the
environment SPAPR_HTAB_MUTANT says which one runs, by the mutant's number."""

import collections
import json
import os
import re
import subprocess
import sys

SWITCH = """
static MUTANT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE: extern "C" fn() = choose;
extern "C" fn choose() {
    let chosen = std::env::var("SPAPR_HTAB_MUTANT").ok().and_then(|mutant| mutant.parse().ok());
    MUTANT.store(chosen.unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
}
fn mutant() -> usize {
    MUTANT.load(std::sync::atomic::Ordering::Relaxed)
}
"""


class Mutants:
    """Mutants of the sources in `repo`, for a copy of them in `tree`."""

    def __init__(self, repo, tree):
        self.repo, self.tree = repo, tree
        self.texts = {}
        for file in subprocess.check_output(["git", "ls-files", "-z"], cwd=repo, text=True).split("\0"):
            if os.path.isfile(os.path.join(repo, file)):
                self.texts[file] = read(repo, file)
        # In the place of a folder, so that proptest keeps no seeds of what a mutant fails.
        self.texts["tests/rust/proptest-regressions"] = ""
        command = ["cargo", "mutants", "--list", "--json", "--diff"]
        for path in ("src/capi/**", "build.rs", "src/**/tests.rs", "src/**/interleavings.rs"):
            command += ["--exclude", path]
        # The numbers are those of the list, so that they stay as long as the sources do.
        self.all = json.loads(subprocess.check_output(command, cwd=repo))
        for number, mutant in enumerate(self.all, 1):
            lines = [line for line in mutant["diff"].splitlines() if not line.startswith("@@")]
            changed = [line[1:] for line in lines[2:] if line[0] == "+"] + ["nothing"]
            changed = re.sub(r" */\* ~ changed by .*?~ \*/ *", " ", changed[0]).strip()
            mutant["number"], mutant["key"] = number, "\n".join(lines)
            mutant["name"] = re.sub(r"^(\S+?):\d+:\d+: ", r"\1: ", mutant["name"]) + f": {changed}"

    def write(self, texts):
        """Writes the tree, with these texts in the place of its own. What does not change keeps its time."""
        for file, text in {**self.texts, **texts}.items():
            path = os.path.join(self.tree, file)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not os.path.exists(path) or read(self.tree, file) != text:
                with open(path, "wb") as opened:
                    opened.write(text.encode("utf-8", "surrogateescape"))

    def write_one(self, mutant):
        text = self.texts[mutant["file"]]
        self.write({mutant["file"]: changed(text, mutant, 0, len(text))})

    def write_all(self, some, check):
        """Writes all of these that compile into one tree. Returns those that do not, as `check` says, and those that
        cannot be switched: constants, functions that may be evaluated by the compiler, types without a name."""
        alone = [mutant for mutant in some if not body(self.texts[mutant["file"]], mutant)]
        some = [mutant for mutant in some if mutant not in alone]
        unviable = []
        while True:
            lines = self.write_switched(some)
            wrong = check()
            if wrong is None:
                return unviable, alone
            blamed = set()
            for file, line in re.findall(r"^(\S+?):(\d+):\d+: error", wrong, re.MULTILINE):
                blamed.update([number for begin, number in lines[file] if begin <= int(line)][-1:])
            if not blamed:
                sys.exit(f"mutants: {wrong}")
            unviable += [mutant for mutant in some if mutant["number"] in blamed]
            some = [mutant for mutant in some if mutant["number"] not in blamed]

    def write_switched(self, some):
        """Returns, by file, where the arm of each begins."""
        functions = collections.defaultdict(list)
        for mutant in some:
            functions[mutant["file"], body(self.texts[mutant["file"]], mutant)].append(mutant)
        texts = {"src/lib.rs": self.texts["src/lib.rs"]}
        # From the last function of a file to the first, so that places before it stay.
        for (file, (begin, end)), inside in sorted(functions.items(), key=lambda of: of[0], reverse=True):
            text, rest = self.texts[file], texts.get(file, self.texts[file])
            arms = "".join(f"{one['number']} => {changed(text, one, begin, end)}\n" for one in inside)
            arms += f"_ => {text[begin:end]}"
            texts[file] = f"{rest[:begin]}{{ match crate::mutant() {{\n{arms} }} }}{rest[end:]}"
        lines = collections.defaultdict(list)
        for file, text in texts.items():
            for arm in re.finditer(r"^(\d+) => \{", text, re.MULTILINE):
                lines[file].append((text.count("\n", 0, arm.start()) + 1, int(arm[1])))
        texts["src/lib.rs"] += SWITCH
        self.write(texts)
        return lines


def read(root, file):
    # Not all of them are text.
    with open(os.path.join(root, file), "rb") as opened:
        return opened.read().decode("utf-8", "surrogateescape")


def offsets(text, span):
    lines = text.splitlines(keepends=True)
    return [sum(map(len, lines[: at["line"] - 1])) + at["column"] - 1 for at in (span["start"], span["end"])]


def changed(text, mutant, begin, end):
    """A part of the text, with the mutant in it."""
    first, last = offsets(text, mutant["span"])
    return text[begin:first] + mutant["replacement"] + text[last:end]


def body(text, mutant):
    """Where the body of the mutant's function begins and ends; None if it cannot be switched."""
    if not mutant["function"]:
        return None
    begin, end = offsets(text, mutant["function"]["span"])
    begin = text.rfind("\n", 0, begin) + 1
    head = re.compile(r"^ *(pub(\(\w+\))? )?(const )?fn [^{]*", re.MULTILINE).search(text, begin, end)
    return None if head[3] or "-> impl" in head[0] else (head.end(), end)
