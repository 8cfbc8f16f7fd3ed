//! The sentences of the specifications, and which cases check them.

use serde::{Deserialize, Serialize};

use super::case::Case;

/// The table that belongs to this module; it says what each field means.
const TABLE: &str = include_str!("sentences.toml");

/// Whom a sentence binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The back-end: a case can check it.
    Device,
    /// The guest or the front-end: a case can only say what a back-end does when they break it.
    Driver,
}

/// How much a sentence binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// MUST and MUST NOT.
    Must,
    /// SHOULD and SHOULD NOT.
    Should,
    /// MAY.
    May,
    /// A plain statement that defines what happens.
    States,
}

impl Level {
    /// As the specifications write it; `STATES` for a plain statement.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
            Self::States => "STATES",
        }
    }
}

/// One sentence of a specification, in our words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sentence {
    /// Its id, which cases name.
    pub id: String,
    /// Which document.
    pub document: String,
    /// Under which heading.
    pub section: String,
    /// How much it binds.
    pub level: Level,
    /// Whom it binds.
    pub side: Side,
    /// What it says.
    pub text: String,
    /// Why no case checks it, where that is not obvious.
    #[serde(default)]
    pub note: String,
}

#[derive(Deserialize)]
struct Table {
    sentence: Vec<Sentence>,
}

/// All sentences, in the order of the documents.
#[must_use]
pub fn all() -> Vec<Sentence> {
    let table: Table = toml::from_str(TABLE).expect("a table that belongs to this program");
    table.sentence
}

/// The ids of the cases that name a sentence.
#[must_use]
pub fn cases_of(sentence: &Sentence, cases: &[Case]) -> Vec<String> {
    let names = |case: &&Case| case.sentences.contains(&sentence.id.as_str());
    cases.iter().filter(names).map(Case::id).collect()
}

/// What stands in the place of cases where none names a sentence.
#[must_use]
pub fn why_none(sentence: &Sentence) -> &str {
    match (sentence.side, sentence.note.as_str()) {
        (Side::Driver, _) => "binds the driver or the front-end",
        (Side::Device, "") => "none",
        (Side::Device, note) => note,
    }
}

/// How many sentences bind the device, and how many of these some case names.
#[must_use]
pub fn coverage(sentences: &[Sentence], cases: &[Case]) -> (usize, usize) {
    let device = || sentences.iter().filter(|one| one.side == Side::Device);
    let covered = device().filter(|one| !cases_of(one, cases).is_empty());
    (device().count(), covered.count())
}

/// The list as Markdown: one table for each document.
#[must_use]
pub fn markdown(sentences: &[Sentence], cases: &[Case]) -> String {
    let (device, covered) = coverage(sentences, cases);
    let mut text = format!(
        "# What nosnoop-conform checks\n\n{} sentences; {device} bind the device, {covered} of these \
         have a case.\n",
        sentences.len()
    );
    let mut document = "";
    for sentence in sentences {
        if sentence.document != document {
            document = &sentence.document;
            text +=
                &format!("\n## {document}\n\n| id | level | says | cases |\n|---|---|---|---|\n");
        }
        let found = cases_of(sentence, cases);
        let found = match found.as_slice() {
            [] => why_none(sentence).to_owned(),
            ids => ids.join(", "),
        };
        let level = sentence.level.word();
        text += &format!(
            "| {} | {level} | {} | {found} |\n",
            sentence.id, sentence.text
        );
    }
    text
}
