//! Explanations written by hand: `explained.toml`.
//!
//! Every test that fails somewhere, makes the kernel complain, or does not go the same way on all
//! devices needs one, with the verdicts that it explains. One that does not fit any more is as wrong
//! as one that is missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::{LabError, Result};
use super::list::List;
use super::verdict::Verdict;
use super::{Column, Comparison};

/// The explanations.
const EXPLAINED: &str = include_str!("explained.toml");

/// Whose doing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    /// Our daemon's.
    Ours,
    /// QEMU's.
    Qemu,
    /// The guest kernel's.
    Kernel,
    /// The test's.
    Test,
    /// Nobody's: the devices are meant to differ.
    Design,
}

impl Whose {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Qemu => "QEMU",
            Self::Kernel => "kernel",
            Self::Test => "test",
            Self::Design => "by design",
        }
    }
}

/// What an explanation expects on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Expected {
    /// This verdict.
    One(Verdict),
    /// Any of these: the kernel limits how often it complains.
    AnyOf(Vec<Verdict>),
}

impl Expected {
    fn allows(&self, found: Verdict) -> bool {
        match self {
            Self::One(verdict) => *verdict == found,
            Self::AnyOf(verdicts) => verdicts.contains(&found),
        }
    }

    /// For people.
    fn text(&self) -> String {
        match self {
            Self::One(verdict) => verdict.to_string(),
            Self::AnyOf(verdicts) => {
                let verdicts = verdicts.iter().map(Verdict::to_string);
                verdicts.collect::<Vec<_>>().join(" or ")
            }
        }
    }
}

/// What tests do on each device, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The names of the tests.
    pub tests: Vec<String>,
    /// Their verdict on each device.
    pub verdicts: BTreeMap<Column, Expected>,
    /// Whose doing it is.
    pub whose: Whose,
    /// Why.
    pub why: String,
}

/// All explanations.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanations {
    #[serde(default)]
    explained: Vec<Explanation>,
}

impl Explanations {
    /// Those of this workspace.
    ///
    /// # Errors
    /// When one is not complete, or is about a test that `list` does not run.
    pub fn fixed(list: &List) -> Result<Self> {
        Self::parse(EXPLAINED, list)
    }

    fn parse(text: &str, list: &List) -> Result<Self> {
        let found: Self = toml::from_str(text).map_err(LabError::context("explained.toml"))?;
        let wrong = |name: &str, what: &str| {
            Err(LabError::failed(format!("explained.toml: {name} {what}")))
        };
        let known = list.tests().into_iter().map(|test| test.name);
        let known = known.collect::<BTreeSet<_>>();
        let mut seen = BTreeSet::new();
        for explanation in &found.explained {
            for name in &explanation.tests {
                if !known.contains(name) {
                    return wrong(name, "is not in list.toml");
                }
                if !seen.insert(name) {
                    return wrong(name, "is explained twice");
                }
                if explanation.verdicts.len() != Column::ALL.len() {
                    return wrong(name, "has not a verdict for each device");
                }
            }
        }
        Ok(found)
    }

    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self {
            explained: Vec::new(),
        }
    }

    /// The explanation of a test.
    #[must_use]
    pub fn of(&self, test: &str) -> Option<&Explanation> {
        let names = |explanation: &&Explanation| explanation.tests.iter().any(|name| name == test);
        self.explained.iter().find(names)
    }
}

/// Whether these verdicts on different devices need an explanation.
#[must_use]
pub fn needs_one(verdicts: &[Verdict]) -> bool {
    let differ = verdicts.windows(2).any(|pair| pair.first() != pair.last());
    let bad = |verdict: &Verdict| matches!(verdict, Verdict::Fail | Verdict::Warn);
    differ || verdicts.iter().any(bad)
}

/// What is not as explained, one line for each test, and why the run broke off if it did; only the
/// devices that were run count.
#[must_use]
pub fn check(comparison: &Comparison, explanations: &Explanations) -> Vec<String> {
    let columns = comparison.columns();
    let mut problems: Vec<String> = comparison.broken.iter().cloned().collect();
    for (index, test) in comparison.tests.iter().enumerate() {
        let found = comparison.verdicts(index);
        let text = |verdicts: &mut dyn Iterator<Item = String>| {
            let each = columns.iter().zip(verdicts);
            let each = each.map(|(column, verdict)| format!("{} {verdict}", column.name()));
            each.collect::<Vec<_>>().join(", ")
        };
        let found_text = text(&mut found.iter().map(Verdict::to_string));
        let Some(explanation) = explanations.of(test) else {
            if needs_one(&found) {
                problems.push(format!("{test}: {found_text} is not explained"));
            }
            continue;
        };
        let of = |column: &Column| explanation.verdicts.get(column);
        let expected = columns.iter().filter_map(of).collect::<Vec<_>>();
        let mut pairs = expected.iter().zip(&found);
        if !pairs.all(|(expected, found)| expected.allows(*found)) {
            let expected = text(&mut expected.iter().map(|expected| expected.text()));
            problems.push(format!(
                "{test}: {expected} is explained, {found_text} was found"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::tests::comparison;
    use super::*;

    const LIST: &str = r#"
        command = []
        left_out = []
        [[igt]]
        program = "a"
        [[igt]]
        program = "b"
    "#;

    fn explained(name: &str, ours: &str, qemu: &str) -> String {
        format!(
            "[[explained]]\ntests = [\"{name}\"]\nwhose = \"kernel\"\nwhy = \"some reason\"\n\
             verdicts = {{ ours = \"{ours}\", host-blobs = \"PASS\", guest-blobs = \"PASS\", \
             qemu = \"{qemu}\" }}\n"
        )
    }

    fn explanations(text: &str) -> Result<Explanations> {
        Explanations::parse(text, &List::parse(LIST).unwrap())
    }

    #[test]
    fn those_of_the_workspace_fit_its_list() {
        Explanations::fixed(&List::fixed().unwrap()).unwrap();
    }

    #[test]
    fn what_is_not_explained_or_gone_is_a_problem() {
        use Verdict::{Fail, Pass, Skip, Warn};
        let columns = [Column::Ours, Column::Qemu];
        let same = comparison(&columns, &[("a", &[Skip, Skip]), ("b", &[Pass, Pass])]);
        let none = explanations("").unwrap();
        assert_eq!(check(&same, &none), Vec::<String>::new());
        let differ = comparison(&columns, &[("a", &[Fail, Pass]), ("b", &[Warn, Warn])]);
        assert_eq!(
            check(&differ, &none),
            [
                "a: ours FAIL, qemu PASS is not explained",
                "b: ours WARN, qemu WARN is not explained"
            ]
        );
        let text = explained("a", "FAIL", "PASS") + &explained("b", "WARN", "WARN");
        let both = explanations(&text).unwrap();
        assert_eq!(check(&differ, &both), Vec::<String>::new());
        let either = text.replacen("\"PASS\" }", "[\"WARN\", \"PASS\"] }", 1);
        let either = explanations(&either).unwrap();
        assert_eq!(check(&differ, &either), Vec::<String>::new());
        assert_eq!(
            check(&same, &either)[0],
            "a: ours FAIL, qemu WARN or PASS is explained, ours SKIP, qemu SKIP was found"
        );
        assert_eq!(
            check(&same, &both),
            [
                "a: ours FAIL, qemu PASS is explained, ours SKIP, qemu SKIP was found",
                "b: ours WARN, qemu WARN is explained, ours PASS, qemu PASS was found"
            ]
        );
    }

    #[test]
    fn every_difference_needs_an_explanation_and_so_does_what_is_bad_everywhere() {
        use Verdict::{Fail, Pass, Skip, Warn};
        for plain in [&[][..], &[Pass], &[Skip], &[Pass; 4], &[Skip; 4]] {
            assert!(!needs_one(plain), "{plain:?}");
        }
        for remarkable in [
            &[Pass, Skip][..],
            &[Pass, Pass, Skip, Pass],
            &[Pass, Pass, Pass, Skip],
            &[Fail; 4],
            &[Warn],
        ] {
            assert!(needs_one(remarkable), "{remarkable:?}");
        }
    }

    #[test]
    fn a_run_that_broke_off_is_a_problem_and_its_missing_devices_are_not() {
        let mut half = comparison(&[Column::Ours], &[("a", &[Verdict::Fail])]);
        half.broken = Some("qemu: no guest".to_owned());
        let explained = explanations(&explained("a", "FAIL", "PASS")).unwrap();
        assert_eq!(check(&half, &explained), ["qemu: no guest"]);
    }

    #[test]
    fn an_explanation_says_everything() {
        let error = |text: &str| explanations(text).unwrap_err().to_string();
        let stranger = explained("c", "FAIL", "PASS");
        assert_eq!(error(&stranger), "explained.toml: c is not in list.toml");
        let once = explained("a", "FAIL", "PASS");
        let twice = once.repeat(2);
        assert_eq!(error(&twice), "explained.toml: a is explained twice");
        let short = once.replace(", qemu = \"PASS\"", "");
        assert_eq!(
            error(&short),
            "explained.toml: a has not a verdict for each device"
        );
    }
}
