//! The report for people: one page without anything from elsewhere.

use super::escaped;
use crate::conform::case::{Case, Group};
use crate::conform::causes::{Account, Cause};
use crate::conform::run::{Run, Verdict};
use crate::conform::sentences::{self, Sentence};

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto;
       max-width: 72em; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25em .6em; border-bottom: 1px solid #ddd; }
th { background: #f4f4f4; position: sticky; top: 0; }
td.id { white-space: nowrap; font-family: ui-monospace, monospace; font-size: .9em; }
td.number { text-align: right; }
.PASS { color: #1a6b2d; } .FAIL { color: #b3261e; font-weight: 600; } .SKIP { color: #777; }
.note { color: #666; font-size: .9em; }
details summary { cursor: pointer; }
details div { font-weight: normal; max-width: 28em; overflow-wrap: anywhere; }
";

/// All runs on one page: counts, what failures come from, cases by back-end, and the sentences with
/// their cases.
#[must_use]
pub fn html(
    runs: &[Run],
    cases: &[Case],
    causes: &[Cause],
    sentences: &[Sentence],
    made: &str,
) -> String {
    let names: Vec<_> = runs.iter().map(|run| escaped(&run.target.name)).collect();
    let title = format!("Conformance of {}", names.join(", "));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p class=\"note\">Made by nosnoop-conform, {}. A case fails where a back-end does not do \
         what the specifications say, and is skipped where it does not offer what the case needs.</p>\n\
         {}{}{}{}{}</body>\n</html>\n",
        escaped(made),
        summary(runs),
        groups(runs, cases),
        super::causes::section(runs, causes, sentences),
        table(runs, cases, causes),
        list(runs, cases, sentences),
    )
}

fn heads(runs: &[Run]) -> String {
    let head = |run: &Run| format!("<th>{}</th>", escaped(&run.target.name));
    runs.iter().map(head).collect()
}

fn summary(runs: &[Run]) -> String {
    let row = |run: &Run| {
        let [passed, failed, skipped] = run.counts();
        format!(
            "<tr><td>{}</td><td class=\"number PASS\">{passed}</td>\
             <td class=\"number {}\">{failed}</td><td class=\"number SKIP\">{skipped}</td>\
             <td class=\"note\">{}</td></tr>\n",
            escaped(&run.target.name),
            if failed == 0 { "SKIP" } else { "FAIL" },
            escaped(&run.probe.names().join(" ")),
        )
    };
    let rows: String = runs.iter().map(row).collect();
    format!(
        "<h2>Back-ends</h2>\n<table>\n<tr><th>back-end</th><th>passed</th><th>failed</th>\
         <th>skipped</th><th>offers</th></tr>\n{rows}</table>\n"
    )
}

fn groups(runs: &[Run], cases: &[Case]) -> String {
    let mut rows = String::new();
    for group in Group::ALL {
        let all = cases.iter().filter(|case| case.group == group).count();
        if all == 0 {
            continue;
        }
        rows += &format!(
            "<tr><td>{}</td><td class=\"number\">{all}</td>",
            group.name()
        );
        for run in runs {
            let of_group = |word: &str| {
                let found = run.findings.iter().filter(|one| one.case.group == group);
                found.filter(|one| one.verdict.word() == word).count()
            };
            let counts: Vec<_> = ["PASS", "FAIL", "SKIP"]
                .into_iter()
                .filter(|word| of_group(word) > 0)
                .map(|word| {
                    let lower = word.to_lowercase();
                    format!("<span class=\"{word}\">{} {lower}</span>", of_group(word))
                })
                .collect();
            rows += &format!("<td>{}</td>", counts.join(", "));
        }
        rows += "</tr>\n";
    }
    format!(
        "<h2>Groups</h2>\n<table>\n<tr><th>group</th><th>cases</th>{}</tr>\n{rows}</table>\n",
        heads(runs)
    )
}

fn table(runs: &[Run], cases: &[Case], causes: &[Cause]) -> String {
    let accounts: Vec<_> = runs.iter().map(|run| Account::of(run, causes)).collect();
    let mut rows = String::new();
    for case in cases {
        rows += &format!(
            "<tr id=\"{0}\"><td class=\"id\">{0}</td><td>{1}<div class=\"note\">{2}</div></td>",
            case.id(),
            escaped(case.name),
            case.sentences.join(", ")
        );
        for (run, account) in runs.iter().zip(&accounts) {
            let found = run.findings.iter().find(|one| one.case.id() == case.id());
            let cause = account.as_ref().and_then(|one| one.cause(&case.id()));
            rows += &found.map_or_else(|| "<td></td>".to_owned(), |one| cell(&one.verdict, cause));
        }
        rows += "</tr>\n";
    }
    format!(
        "<h2>Cases</h2>\n<table>\n<tr><th>case</th><th>what holds</th>{}</tr>\n{rows}</table>\n",
        heads(runs)
    )
}

fn cell(verdict: &Verdict, cause: Option<&Cause>) -> String {
    let word = verdict.word();
    let cause = cause.map_or_else(String::new, |cause| {
        format!("<div class=\"note\">{}</div>", escaped(&cause.title))
    });
    match verdict.reason() {
        "" => format!("<td class=\"{word}\">{word}</td>"),
        reason => format!(
            "<td class=\"{word}\" title=\"{0}\"><details><summary>{word}</summary><div>{0}</div>\
             </details>{cause}</td>",
            escaped(reason)
        ),
    }
}

fn list(runs: &[Run], cases: &[Case], sentences: &[Sentence]) -> String {
    let (device, covered) = sentences::coverage(sentences, cases);
    let mut text = format!(
        "<h2>Sentences</h2>\n<p>{} sentences of the specifications; {device} bind the device, \
         {covered} of these have a case. A case in red failed on some back-end of this page.</p>\n",
        sentences.len()
    );
    let mut document = "";
    for sentence in sentences {
        if sentence.document != document {
            if !document.is_empty() {
                text += "</table>\n";
            }
            document = &sentence.document;
            text += &format!(
                "<h3>{}</h3>\n<table>\n<tr><th>id</th><th>level</th><th>says</th><th>cases</th></tr>\n",
                escaped(document)
            );
        }
        let level = sentence.level.word();
        text += &format!(
            "<tr><td class=\"id\">{}</td><td>{level}</td><td>{}<div class=\"note\">{}</div></td>\
             <td>{}</td></tr>\n",
            escaped(&sentence.id),
            escaped(&sentence.text),
            escaped(&sentence.section),
            links(runs, cases, sentence)
        );
    }
    text + "</table>\n"
}

fn links(runs: &[Run], cases: &[Case], sentence: &Sentence) -> String {
    let failed = |id: &str| {
        let findings = runs.iter().flat_map(|run| &run.findings);
        findings
            .filter(|one| matches!(one.verdict, Verdict::Fail(_)))
            .any(|one| one.case.id() == id)
    };
    let found = sentences::cases_of(sentence, cases);
    if found.is_empty() {
        let why = escaped(sentences::why_none(sentence));
        return format!("<span class=\"note\">{why}</span>");
    }
    let link = |id: &String| {
        let class = if failed(id) { " class=\"FAIL\"" } else { "" };
        format!("<a href=\"#{id}\"{class}>{id}</a>")
    };
    found.iter().map(link).collect::<Vec<_>>().join(", ")
}
