//! What failures come from, as parts of the reports for people.

use super::escaped;
use crate::conform::causes::{Account, Cause};
use crate::conform::run::Run;
use crate::conform::sentences::Sentence;

/// Ids of cases that a list for a README names; the page has them all.
const NAMED: usize = 8;

/// What stands for the cases of a cause that is met by chance, and was not this time.
const NOT_NOW: &str = "by chance none this time";

fn accounts<'a>(runs: &'a [Run], causes: &'a [Cause]) -> Vec<(&'a Run, Account<'a>)> {
    let of = |run| Some((run, Account::of(run, causes)?));
    runs.iter().filter_map(of).collect()
}

/// A list of the causes by which each back-end's cases failed; back-ends for which none are known
/// are not in it.
#[must_use]
pub fn list(runs: &[Run], causes: &[Cause], sentences: &[Sentence]) -> String {
    let mut text = String::new();
    for (run, account) in accounts(runs, causes) {
        let [_, failed, _] = run.counts();
        text += &format!("Failures of {}: {failed}.\n\n", run.target.name);
        for (cause, ids) in &account.met {
            let named: Vec<_> = ids.iter().take(NAMED).map(String::as_str).collect();
            let more = match ids.len().saturating_sub(NAMED) {
                0 if ids.is_empty() => format!("{NOT_NOW} ({})", cause.cases.join(", ")),
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            text += &format!(
                "- **{}** ({}). {} Cases: {}{more}.\n",
                cause.title,
                cause.rules(sentences),
                cause.text,
                named.join(", ")
            );
        }
        for line in account.open() {
            text += &format!("- {line}\n");
        }
        text.push('\n');
    }
    text
}

/// The same as a section of a page, with where each was seen.
pub(super) fn section(runs: &[Run], causes: &[Cause], sentences: &[Sentence]) -> String {
    let mut rows = String::new();
    for (run, account) in accounts(runs, causes) {
        for (cause, ids) in &account.met {
            let links = match ids.as_slice() {
                [] => NOT_NOW.to_owned(),
                ids => {
                    let links = ids.iter().map(|id| format!("<a href=\"#{id}\">{id}</a>"));
                    links.collect::<Vec<_>>().join(", ")
                }
            };
            rows += &format!(
                "<tr><td>{}</td><td><b>{}</b><div>{}</div><div class=\"note\">{}; seen in {}</div>\
                 </td><td>{}</td></tr>\n",
                escaped(&run.target.name),
                escaped(&cause.title),
                escaped(&cause.text),
                escaped(&cause.rules(sentences)),
                escaped(&cause.seen),
                links
            );
        }
        for line in account.open() {
            rows += &format!(
                "<tr><td>{}</td><td class=\"FAIL\">{}</td><td></td></tr>\n",
                escaped(&run.target.name),
                escaped(&line)
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<h2>What the failures come from</h2>\n<table>\n<tr><th>back-end</th><th>what</th>\
         <th>cases</th></tr>\n{rows}</table>\n"
    )
}
