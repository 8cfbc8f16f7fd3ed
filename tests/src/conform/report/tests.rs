use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::conform::cases;
use crate::conform::causes::Cause;
use crate::conform::probe::Probe;
use crate::conform::run::{Finding, Run, Verdict};
use crate::conform::sentences;
use crate::conform::target::{Kind, Target};

/// Two back-ends: one that passes everything, one that fails the first case and skips the second.
fn runs() -> Vec<Run> {
    let cases = cases::all();
    let run = |name: &str, verdict: fn(usize) -> Verdict| Run {
        target: Target {
            name: name.to_owned(),
            kind: Kind::Socket(PathBuf::from("/run/x.sock")),
        },
        probe: Probe {
            features: 1 << 32,
            protocol_features: 1 << 9,
            ..Probe::default()
        },
        findings: cases
            .iter()
            .enumerate()
            .map(|(at, case)| Finding {
                case: *case,
                verdict: verdict(at),
                took: Duration::from_millis(3),
            })
            .collect(),
    };
    let mixed = |at| match at {
        0 => Verdict::Fail("1 < 2 & \"so\"\u{1}".to_owned()),
        1 => Verdict::Skip("EDID is not offered".to_owned()),
        _ => Verdict::Pass,
    };
    vec![run("good", |_| Verdict::Pass), run("bad", mixed)]
}

/// One cause, of the first case's failure on the back-end that has one.
fn causes() -> Vec<Cause> {
    vec![Cause {
        peer: "bad".to_owned(),
        title: "1 is < 2".to_owned(),
        text: "It compares.".to_owned(),
        sentences: vec!["ring-10".to_owned()],
        cases: vec![cases::all()[0].id()],
        says: String::new(),
        by_chance: false,
        seen: "bad.c".to_owned(),
    }]
}

#[test]
fn json_counts_and_names_what_came_out() {
    let report: serde_json::Value = serde_json::from_str(&json(&runs(), &causes())).unwrap();
    let bad = &report["backends"][1];
    assert_eq!(bad["name"], "bad");
    assert_eq!((&bad["failed"], &bad["skipped"]), (&1.into(), &1.into()));
    assert_eq!(bad["offers"][0], "VERSION_1");
    let first = &bad["cases"][0];
    assert_eq!(first["id"], cases::all()[0].id());
    assert_eq!(first["verdict"], "FAIL");
    assert_eq!(first["reason"], "1 < 2 & \"so\"\u{1}");
    assert_eq!(first["cause"], "1 is < 2");
    assert_eq!(bad["unexplained"], serde_json::json!([]));
    let good = &report["backends"][0];
    assert!(good.get("unexplained").is_none() && good["cases"][0].get("cause").is_none());
}

#[test]
fn junit_is_escaped_and_counted() {
    let xml = junit(&runs());
    let all = cases::all().len();
    let suite = format!(
        "<testsuite name=\"bad\" tests=\"{all}\" failures=\"1\" errors=\"0\" skipped=\"1\""
    );
    assert!(xml.contains(&suite), "{xml}");
    assert!(
        xml.contains("<failure message=\"1 &lt; 2 &amp; &quot;so&quot;\u{fffd}\"/>"),
        "{xml}"
    );
    assert_eq!(xml.matches("<testcase ").count(), 2 * all);
    assert_eq!(
        xml.matches("<testcase ").count(),
        xml.matches("/>\n").count()
    );
}

#[test]
fn html_has_each_case_on_each_back_end_and_each_sentence() {
    let (cases, sentences) = (cases::all(), sentences::all());
    let page = html(&runs(), &cases, &causes(), &sentences, "today");
    assert_eq!(
        page.matches("<td class=\"PASS\">PASS</td>").count(),
        2 * cases.len() - 2
    );
    assert!(page.contains("title=\"1 &lt; 2 &amp; &quot;so&quot;\u{fffd}\""));
    assert!(page.contains("EDID is not offered"));
    // Among the causes, and behind the failure that it explains.
    assert_eq!(page.matches("1 is &lt; 2").count(), 2);
    for sentence in &sentences {
        assert!(page.contains(&format!("<td class=\"id\">{}</td>", sentence.id)));
    }
    for open in ["table", "tr", "td", "th", "details", "div", "span"] {
        let opened =
            page.matches(&format!("<{open}")).count() - page.matches(&format!("<{open}er")).count();
        let closed = page.matches(&format!("</{open}>")).count();
        // <thead> and the like are not used, so that a prefix is the element itself.
        assert_eq!(opened, closed, "<{open}>");
    }
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "nothing from elsewhere"
    );
}

#[test]
fn the_list_of_causes_names_each_with_its_rule_and_its_cases() {
    let list = causes::list;
    let (runs, causes, first) = (runs(), causes(), cases::all()[0].id());
    assert_eq!(
        list(&runs, &causes, &sentences::all()),
        format!(
            "Failures of bad: 1.\n\n- **1 is < 2** (ring-10 MUST). It compares. Cases: {first}.\n\n"
        )
    );
    let unknown = [Cause {
        says: "2 < 1".to_owned(),
        ..causes[0].clone()
    }];
    let open = list(&runs, &unknown, &sentences::all());
    assert!(
        open.contains(&format!("- 1 failure not explained: {first}\n")),
        "{open}"
    );
    assert!(
        open.contains(&format!("- {first} fails no more by this: 1 is < 2\n")),
        "{open}"
    );
    assert_eq!(list(&runs[..1], &causes, &sentences::all()), "");
}

#[test]
fn markdown_counts_by_group() {
    let cases = cases::all();
    let table = markdown(&runs(), &cases, "today");
    let all = cases.len();
    let last = format!(
        "| **all** | {all} of {all} | {} of {}, 1 not asked |",
        all - 2,
        all - 1
    );
    assert!(table.contains(&last), "{table}");
    let columns = |line: &str| line.matches('|').count();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    assert!(rows.clone().all(|line| columns(line) == 4), "{table}");
    assert!(rows.count() > 3);
}
