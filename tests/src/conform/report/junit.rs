//! The report for continuous integration.

use super::escaped;
use crate::conform::run::{Finding, Run, Verdict};

/// All runs as JUnit XML: a test suite for each back-end, a test case for each case.
#[must_use]
pub fn junit(runs: &[Run]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for run in runs {
        let [_, failed, skipped] = run.counts();
        let seconds: f64 = run.findings.iter().map(|one| one.took.as_secs_f64()).sum();
        xml += &format!(
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" \
             skipped=\"{skipped}\" time=\"{seconds:.3}\">\n",
            escaped(&run.target.name),
            run.findings.len()
        );
        for finding in &run.findings {
            xml += &case(&run.target.name, finding);
        }
        xml += "  </testsuite>\n";
    }
    xml + "</testsuites>\n"
}

fn case(backend: &str, finding: &Finding) -> String {
    let head = format!(
        "    <testcase classname=\"{}.{}\" name=\"{} {}\" time=\"{:.3}\"",
        escaped(backend),
        finding.case.group.name(),
        finding.case.id(),
        escaped(finding.case.name),
        finding.took.as_secs_f64()
    );
    match &finding.verdict {
        Verdict::Pass => head + "/>\n",
        Verdict::Fail(what) => format!(
            "{head}>\n      <failure message=\"{}\"/>\n    </testcase>\n",
            escaped(what)
        ),
        Verdict::Skip(why) => format!(
            "{head}>\n      <skipped message=\"{}\"/>\n    </testcase>\n",
            escaped(why)
        ),
    }
}
